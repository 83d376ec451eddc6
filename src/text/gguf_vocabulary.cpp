// SPDX-License-Identifier: Apache-2.0
#include "kamerton/text/gguf_vocabulary.h"

#include <algorithm>
#include <optional>
#include <unordered_map>

#include <nlohmann/json.hpp>

#include "kamerton/text/bundle.h"

#include "gguf_styles.h"
#include "json_reader.h"

namespace kamerton::text {
namespace {

using core::Json;

const Json& member(const Json& object, const char* key) {
  static const Json none;
  const Json* found = core::json_find(object, key);
  return found == nullptr ? none : *found;
}

using Merges = std::vector<std::pair<std::string, std::string>>;

/// A tokenizer.json taken apart.
struct GgufVocabularySource {
  std::string origin;
  Json json;
  std::vector<std::string> tokens = {};  ///< one a row
  std::vector<GgufTokenType> types = {};
  std::unordered_map<std::string, int32_t> ids = {};  ///< of the model's vocabulary

  const Json& model() const { return member(json, "model"); }

  void place(const std::string& token, const Json& id, GgufTokenType type) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 ||
        id.get<int64_t>() >= static_cast<int64_t>(tokens.size())) {
      refuse(origin,
             "token '" + token + "' has an id without a row in the embedding of " +
                 std::to_string(tokens.size()),
             id.dump());
    }
    tokens[id.get<size_t>()] = token;
    types[id.get<size_t>()] = type;
  }
};

GgufTokenType type_of_piece(const std::string& piece, const std::string& unk) {
  const bool byte = piece.size() == 6 && piece.starts_with("<0x") && piece.back() == '>';
  return piece == unk ? GgufTokenType::Unknown : byte ? GgufTokenType::Byte : GgufTokenType::Normal;
}

GgufVocabularySource read_source(const std::filesystem::path& file, int64_t rows) {
  GgufVocabularySource source{file.string(),
                              core::parse_json(read_text(file.string()), file.string())};
  if (!source.json.is_object() || word(source.model(), "type", "") != "BPE") {
    refuse(source.origin,
           "only BPE tokenizers can be written to GGUF",
           word(source.model(), "type", "none"));
  }
  for (int64_t row = 0; row < rows; ++row) {
    source.tokens.push_back("[PAD" + std::to_string(row) + "]");
  }
  source.types.assign(source.tokens.size(), GgufTokenType::Unused);
  const std::string unk = word(source.model(), "unk_token", "");
  const bool fallback = flag(source.model(), "byte_fallback", false);
  for (const auto& [piece, id] : member(source.model(), "vocab").items()) {
    const GgufTokenType type = type_of_piece(piece, unk);
    source.place(
        piece, id, type == GgufTokenType::Byte && !fallback ? GgufTokenType::Normal : type);
    source.ids.emplace(piece, id.get<int32_t>());
  }
  for (const Json& added : member(source.json, "added_tokens")) {
    const std::string content = word(added, "content", "");
    const bool special = flag(added, "special", false);
    source.place(content,
                 member(added, "id"),
                 content == unk && !unk.empty() ? GgufTokenType::Unknown
                 : special                      ? GgufTokenType::Control
                                                : GgufTokenType::UserDefined);
  }
  return source;
}

/// "a b" or ["a", "b"].
Merges merges_of(const GgufVocabularySource& source) {
  Merges out;
  for (const Json& merge : member(source.model(), "merges")) {
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      out.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
      continue;
    }
    const std::string text = merge.is_string() ? merge.get<std::string>() : "";
    const size_t blank = text.find(' ');
    if (blank == std::string::npos) {
      refuse(source.origin, "a merge must be \"a b\" or [\"a\", \"b\"]", merge.dump());
    }
    out.emplace_back(text.substr(0, blank), text.substr(blank + 1));
  }
  return out;
}

bool is_byte_level(const GgufVocabularySource& source) {
  return member(source.json, "pre_tokenizer").dump().find("\"ByteLevel\"") != std::string::npos;
}

void add_gpt2(const GgufVocabularySource& source, storage::GgufMetadata& out) {
  const auto pre = gguf_style_name(member(source.json, "pre_tokenizer"));
  if (!pre) {
    refuse(source.origin,
           "llama.cpp has no pre-tokenizer that splits as this one; smollm, llama-bpe, qwen2, "
           "gpt-4o, tekken and gpt-2 are known",
           member(source.json, "pre_tokenizer").dump().substr(0, 300));
  }
  std::vector<std::string> merges;
  for (const auto& [left, right] : merges_of(source)) {
    merges.push_back(left + " " + right);
  }
  out.add_text("tokenizer.ggml.model", "gpt2");
  out.add_text("tokenizer.ggml.pre", *pre);
  out.add_texts("tokenizer.ggml.merges", merges);
}

[[noreturn]] void refuse_merges(const GgufVocabularySource& source, const std::string& piece) {
  refuse(source.origin,
         "llama.cpp joins pieces by the score of the result, and no scores reproduce these merges",
         "'" + piece + "'");
}

/// The ways to make a piece of two others.
size_t count_splits(const GgufVocabularySource& source, const std::string& piece) {
  size_t count = 0;
  for (size_t cut = 1; cut < piece.size(); ++cut) {
    count += source.ids.count(piece.substr(0, cut)) != 0 && source.ids.count(piece.substr(cut)) != 0
                 ? 1
                 : 0;
  }
  return count;
}

/// SentencePiece joins the neighbours whose result has the best score. That is what merges in order
/// of rank do when all ways to make a piece stand together, none of them missing.
std::vector<float> scores_of(const GgufVocabularySource& source) {
  std::vector<float> scores(source.tokens.size(), 0.0F);
  std::unordered_map<std::string, size_t> made;
  std::string before;
  for (const auto& [left, right] : merges_of(source)) {
    const std::string piece = left + right;
    const auto found = source.ids.find(piece);
    const auto [entry, first] = made.try_emplace(piece, 0);
    if (found == source.ids.end() || (!first && piece != before)) {
      refuse_merges(source, piece);
    }
    ++entry->second;
    scores[static_cast<size_t>(found->second)] = -static_cast<float>(made.size());
    before = piece;
  }
  const float last = -static_cast<float>(made.size() + 1);
  for (const auto& [piece, id] : source.ids) {
    const auto entry = made.find(piece);
    const auto row = static_cast<size_t>(id);
    if (entry != made.end() && count_splits(source, piece) != entry->second) {
      refuse_merges(source, piece);
    }
    if (entry == made.end() && source.types[row] == GgufTokenType::Normal) {
      scores[row] = last;
    }
  }
  return scores;
}

/// Whether a text begins with U+2581 where it had no space.
bool prepends_blank(const GgufVocabularySource& source) {
  const std::string normalizer = member(source.json, "normalizer").dump();
  const Json& pre = member(source.json, "pre_tokenizer");
  if (pre.is_object() && word(pre, "type", "") == "Metaspace") {
    return word(pre, "prepend_scheme", flag(pre, "add_prefix_space", true) ? "always" : "never") !=
           "never";
  }
  return normalizer.find("\"Prepend\"") != std::string::npos;
}

void add_llama(const GgufVocabularySource& source, storage::GgufMetadata& out) {
  if (!flag(source.model(), "byte_fallback", false)) {
    refuse(source.origin,
           "a BPE tokenizer that is neither byte-level nor has byte pieces cannot be written to "
           "GGUF");
  }
  out.add_text("tokenizer.ggml.model", "llama");
  out.add_text("tokenizer.ggml.pre", "default");
  out.add_reals("tokenizer.ggml.scores", scores_of(source));
  out.add_flag("tokenizer.ggml.add_space_prefix", prepends_blank(source));
}

void add_id(storage::GgufMetadata& out, const char* key, std::optional<int32_t> id) {
  if (id) {
    out.add_count(key, static_cast<uint32_t>(*id));
  }
}

/// Ids of special tokens, and whether bos and eos are put around a text. What the post-processor
/// puts there is bos or eos too where the folder names none.
void add_specials(const GgufVocabularySource& source,
                  const TokenizerBundle& bundle,
                  storage::GgufMetadata& out) {
  const std::vector<int32_t> plain = bundle.tokenizer.encode("a", false);
  const std::vector<int32_t> whole = bundle.tokenizer.encode("a", true);
  const bool front = !plain.empty() && whole.front() != plain.front();
  const bool back = !plain.empty() && whole.back() != plain.back();
  const auto bos = !bundle.bos && front ? std::optional(whole.front()) : bundle.bos;
  const auto eos = !bundle.eos && back ? std::optional(whole.back()) : bundle.eos;
  add_id(out, "tokenizer.ggml.bos_token_id", bos);
  add_id(out, "tokenizer.ggml.eos_token_id", eos);
  add_id(out, "tokenizer.ggml.padding_token_id", bundle.pad);
  const auto unk = source.ids.find(word(source.model(), "unk_token", ""));
  if (unk != source.ids.end()) {
    add_id(out, "tokenizer.ggml.unknown_token_id", unk->second);
  }
  for (const int32_t stop : bundle.stop_ids) {
    if (!eos || stop != *eos) {
      add_id(out, "tokenizer.ggml.eot_token_id", stop);
      break;
    }
  }
  out.add_flag("tokenizer.ggml.add_bos_token", front && whole.front() == *bos);
  out.add_flag("tokenizer.ggml.add_eos_token", back && whole.back() == *eos);
}

}  // namespace

storage::GgufMetadata gguf_vocabulary(const std::filesystem::path& model_dir, int64_t rows) {
  storage::GgufMetadata out;
  if (!std::filesystem::exists(model_dir / "tokenizer.json")) {
    out.add_text("tokenizer.ggml.model", "no_vocab");
    return out;
  }
  const GgufVocabularySource source = read_source(model_dir / "tokenizer.json", rows);
  is_byte_level(source) ? add_gpt2(source, out) : add_llama(source, out);
  out.add_texts("tokenizer.ggml.tokens", source.tokens);
  std::vector<int32_t> types;
  for (const GgufTokenType type : source.types) {
    types.push_back(static_cast<int32_t>(type));
  }
  out.add_integers("tokenizer.ggml.token_type", types);
  const TokenizerBundle bundle = load_bundle(model_dir);
  add_specials(source, bundle, out);
  if (bundle.chat_template) {
    out.add_text("tokenizer.chat_template", bundle.chat_template->source());
  }
  return out;
}

}  // namespace kamerton::text
