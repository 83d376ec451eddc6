// SPDX-License-Identifier: Apache-2.0
#include "kamerton/text/gguf_tokenizer.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "gguf_styles.h"
#include "json_reader.h"
#include "token_map.h"
#include "unicode.h"

namespace kamerton::text {
namespace {

using core::Json;

struct GgufTokenizerSource {
  const Json& metadata;
  const std::string& origin;
  std::vector<std::string> tokens = {};
  std::vector<GgufTokenType> types = {};

  const Json* find(const char* key) const {
    return core::json_find(metadata, std::string("tokenizer.") + key);
  }
  std::optional<int32_t> id(const char* name) const {
    const Json* value = find((std::string("ggml.") + name + "_token_id").c_str());
    if (value == nullptr) {
      return std::nullopt;
    }
    if (!value->is_number_integer() || value->get<int64_t>() < 0 ||
        value->get<int64_t>() >= static_cast<int64_t>(tokens.size())) {
      refuse(origin, std::string("the ") + name + "_token_id is no id of a token", value->dump());
    }
    return value->get<int32_t>();
  }
  bool flag_of(const char* key, bool otherwise) const {
    const Json* value = find(key);
    return value != nullptr && value->is_boolean() ? value->get<bool>() : otherwise;
  }
};

std::vector<std::string> strings_of(const Json* list, const char* what, const std::string& origin) {
  if (list == nullptr || !list->is_array()) {
    refuse(origin, std::string("the GGUF metadata have no list of ") + what);
  }
  std::vector<std::string> out;
  for (const Json& item : *list) {
    if (!item.is_string()) {
      refuse(origin, std::string("the GGUF's ") + what + " must be strings");
    }
    out.push_back(item.get<std::string>());
  }
  return out;
}

std::string quoted(const std::string& text) {
  return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json added_tokens(const GgufTokenizerSource& source) {
  std::vector<Json> list;
  for (size_t id = 0; id < source.tokens.size(); ++id) {
    const GgufTokenType type = id < source.types.size() ? source.types[id] : GgufTokenType::Normal;
    if (type == GgufTokenType::Control || type == GgufTokenType::UserDefined ||
        type == GgufTokenType::Unknown) {
      list.push_back({{"id", id},
                      {"content", source.tokens[id]},
                      {"single_word", false},
                      {"lstrip", false},
                      {"rstrip", false},
                      {"normalized", false},
                      {"special", type != GgufTokenType::UserDefined}});
    }
  }
  return list;
}

Json special_piece(const std::string& token) {
  return {{"SpecialToken", {{"id", token}, {"type_id", 0}}}};
}

/// Null when nothing is put around a text.
Json post_processor(const GgufTokenizerSource& source, bool bos_by_default) {
  const auto bos = source.id("bos");
  const auto eos = source.id("eos");
  const bool front = bos && source.flag_of("ggml.add_bos_token", bos_by_default);
  const bool back = eos && source.flag_of("ggml.add_eos_token", false);
  if (!front && !back) {
    return nullptr;
  }
  Json single = Json::array();
  Json tokens = Json::object();
  const auto add = [&](int32_t id) {
    const std::string& token = source.tokens[static_cast<size_t>(id)];
    single.push_back(special_piece(token));
    tokens[token] = {{"id", token}, {"ids", {id}}, {"tokens", {token}}};
  };
  if (front) {
    add(*bos);
  }
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  if (back) {
    add(*eos);
  }
  return {{"type", "TemplateProcessing"},
          {"single", single},
          {"pair", Json::array()},
          {"special_tokens", tokens}};
}

/// Objects of tens of thousands of keys are written by hand: the ordered JSON type is quadratic in
/// building them.
std::string source_vocab_text(const GgufTokenizerSource& source) {
  std::string out = "{";
  for (size_t id = 0; id < source.tokens.size(); ++id) {
    out += (id > 0 ? "," : "") + quoted(source.tokens[id]) + ":" + std::to_string(id);
  }
  return out + "}";
}

std::string assembled(const GgufTokenizerSource& source,
                      const GgufStyle& style,
                      const Json& decoder,
                      const Json& post,
                      const std::string& model) {
  return R"({"version":"1.0","truncation":null,"padding":null,"added_tokens":)" +
         added_tokens(source).dump() + R"(,"normalizer":)" + style.normalizer.dump() +
         R"(,"pre_tokenizer":)" + style.pre_tokenizer.dump() + R"(,"post_processor":)" +
         post.dump() + R"(,"decoder":)" + decoder.dump() + R"(,"model":)" + model + "}";
}

std::string bpe_text(const GgufTokenizerSource& source,
                     const std::string& merges,
                     const Json& unk,
                     bool fuse_and_bytes,
                     bool ignore_merges) {
  const std::string yes = fuse_and_bytes ? "true" : "false";
  return R"({"type":"BPE","dropout":null,"unk_token":)" + unk.dump() +
         R"(,"continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":)" + yes +
         R"(,"byte_fallback":)" + yes + R"(,"ignore_merges":)" +
         (ignore_merges ? "true" : "false") + R"(,"vocab":)" + source_vocab_text(source) +
         R"(,"merges":)" + merges + "}";
}

std::string gpt2_json(const GgufTokenizerSource& source) {
  const Json* pre = source.find("ggml.pre");
  const GgufStyle style = gguf_style(
      pre != nullptr && pre->is_string() ? pre->get<std::string>() : "default", source.origin);
  std::string merges = "[";
  for (const std::string& merge : strings_of(source.find("ggml.merges"), "merges", source.origin)) {
    const size_t blank = merge.find(' ', 1);
    if (blank == std::string::npos) {
      refuse(source.origin, "a merge must be two tokens with a space between", merge);
    }
    merges += (merges.size() > 1 ? ",[" : "[") + quoted(merge.substr(0, blank)) + "," +
              quoted(merge.substr(blank + 1)) + "]";
  }
  return assembled(source,
                   style,
                   byte_level_json(true, true),
                   post_processor(source, false),
                   bpe_text(source, merges + "]", nullptr, false, style.ignore_merges));
}

struct Merge {
  int32_t left, right;
  double score;
};

/// Every way to make a token of two others, best token first; SentencePiece merges by the score of
/// the result.
std::vector<Merge> merges_from_scores(const GgufTokenizerSource& source, const Json* scores) {
  if (scores == nullptr || !scores->is_array() || scores->size() != source.tokens.size()) {
    refuse(source.origin, "the GGUF metadata have no score for each token");
  }
  TokenMap ids;
  for (size_t id = 0; id < source.tokens.size(); ++id) {
    ids.insert(source.tokens[id], static_cast<int32_t>(id));
  }
  std::vector<Merge> all;
  for (size_t id = 0; id < source.tokens.size(); ++id) {
    const std::string_view token = source.tokens[id];
    if (token.size() > 1024 || !(*scores)[id].is_number()) {
      refuse(source.origin, "a token is too long or its score is no number", std::to_string(id));
    }
    const size_t from = all.size();
    for (size_t cut = 1; cut < token.size(); ++cut) {
      const int32_t left = ids.find(token.substr(0, cut));
      const int32_t right = ids.find(token.substr(cut));
      if (left >= 0 && right >= 0) {
        all.push_back({left, right, (*scores)[id].get<double>()});
      }
    }
    std::sort(
        all.begin() + static_cast<ptrdiff_t>(from), all.end(), [](const Merge& a, const Merge& b) {
          return std::pair(a.left, a.right) < std::pair(b.left, b.right);
        });
  }
  std::stable_sort(
      all.begin(), all.end(), [](const Merge& a, const Merge& b) { return a.score > b.score; });
  return all;
}

std::string llama_json(const GgufTokenizerSource& source) {
  std::string merges = "[";
  for (const Merge& merge : merges_from_scores(source, source.find("ggml.scores"))) {
    merges += (merges.size() > 1 ? ",[" : "[") +
              quoted(source.tokens[static_cast<size_t>(merge.left)]) + "," +
              quoted(source.tokens[static_cast<size_t>(merge.right)]) + "]";
  }
  const bool prefix = source.flag_of("ggml.add_space_prefix", true);
  const Json blank = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\u2581"}};
  const Json prepend = {{"type", "Prepend"}, {"prepend", "\u2581"}};
  GgufStyle style;
  style.normalizer = {
      {"type", "Sequence"},
      {"normalizers", prefix ? Json::array({prepend, blank}) : Json::array({blank})}};
  Json decoders =
      Json::array({{{"type", "Replace"}, {"pattern", {{"String", "\u2581"}}}, {"content", " "}},
                   {{"type", "ByteFallback"}},
                   {{"type", "Fuse"}}});
  if (prefix) {
    decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  }
  const auto unk = source.id("unknown");
  const Json unk_token = unk ? Json(source.tokens[static_cast<size_t>(*unk)]) : Json();
  return assembled(source,
                   style,
                   {{"type", "Sequence"}, {"decoders", decoders}},
                   post_processor(source, true),
                   bpe_text(source, merges + "]", unk_token, true, false));
}

Json special_tokens(const GgufTokenizerSource& source) {
  Json out = Json::object();
  for (const auto& [gguf, name] : {std::pair("bos", "bos_token"),
                                   std::pair("eos", "eos_token"),
                                   std::pair("unknown", "unk_token"),
                                   std::pair("padding", "pad_token")}) {
    if (const auto id = source.id(gguf)) {
      out[name] = source.tokens[static_cast<size_t>(*id)];
    }
  }
  return out;
}

}  // namespace

bool has_gguf_tokenizer(const Json& metadata) {
  const Json* model = core::json_find(metadata, "tokenizer.ggml.model");
  return model == nullptr ? core::json_find(metadata, "tokenizer.ggml.tokens") != nullptr
                          : *model != "no_vocab" && *model != "none";
}

GgufTokenizerFiles gguf_tokenizer_files(const Json& metadata, const std::string& origin) {
  GgufTokenizerSource source{metadata, origin};
  const Json* model = source.find("ggml.model");
  source.tokens = strings_of(source.find("ggml.tokens"), "tokens", origin);
  if (const Json* types = source.find("ggml.token_type"); types != nullptr && types->is_array()) {
    for (const Json& type : *types) {
      source.types.push_back(type.is_number_integer()
                                 ? static_cast<GgufTokenType>(type.get<int32_t>())
                                 : GgufTokenType::Normal);
    }
  }
  const std::string name = model != nullptr && model->is_string() ? model->get<std::string>() : "";
  if (name != "gpt2" && name != "llama") {
    refuse(origin, "the GGUF's tokenizer model is not supported: gpt2 and llama are", name);
  }
  GgufTokenizerFiles files;
  files.tokenizer_json = name == "gpt2" ? gpt2_json(source) : llama_json(source);
  const Json specials = special_tokens(source);
  Json config = specials;
  config["tokenizer_class"] = "PreTrainedTokenizerFast";
  config["clean_up_tokenization_spaces"] = false;
  if (const Json* jinja = source.find("chat_template"); jinja != nullptr && jinja->is_string()) {
    files.chat_template = jinja->get<std::string>();
    config["chat_template"] = files.chat_template;
  }
  files.tokenizer_config_json = config.dump(2);
  files.special_tokens_map_json = specials.dump(2);
  return files;
}

}  // namespace kamerton::text
