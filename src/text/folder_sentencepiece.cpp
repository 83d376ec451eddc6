// SPDX-License-Identifier: Apache-2.0
// SentencePiece models as transformers' tokenizer classes read them: the pieces with merges in the
// order of their ids, and each class's own handling of blanks.
#include <fmt/format.h>

#include "folder_tokenizer.h"
#include "json_reader.h"
#include "sentencepiece.h"
#include "token_map.h"
#include "unicode.h"

namespace kamerton::text {
namespace {

using Merges = std::vector<std::pair<std::string, std::string>>;

std::vector<std::string> texts_of(const SentencePieceModel& model) {
  std::vector<std::string> tokens;
  for (const SentencePiece& piece : model.pieces) {
    tokens.push_back(piece.text);
  }
  return tokens;
}

/// Every way to make a piece of two others, in order of its id, the shortest left part first.
Merges merges_by_id(const std::vector<std::string>& tokens, const std::string& origin) {
  constexpr size_t kLongestPiece = 4096;
  TokenMap ids;
  ids.reserve(tokens.size());
  for (size_t id = 0; id < tokens.size(); ++id) {
    ids.insert(tokens[id], static_cast<int32_t>(id));
  }
  Merges merges;
  for (const std::string& token : tokens) {
    if (token.size() > kLongestPiece) {
      refuse(origin, "a piece is longer than 4096 bytes", token);
    }
    size_t cut = 0;
    for (next_char(token, cut); cut < token.size(); next_char(token, cut)) {
      const std::string_view whole = token;
      if (ids.find(whole.substr(0, cut)) >= 0 && ids.find(whole.substr(cut)) >= 0) {
        merges.emplace_back(whole.substr(0, cut), whole.substr(cut));
      }
    }
  }
  return merges;
}

std::vector<NewToken> own_tokens(const SentencePieceModel& model) {
  std::vector<NewToken> own;
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    const SentencePiece& piece = model.pieces[id];
    if (piece.type == PieceType::Control || piece.type == PieceType::UserDefined) {
      own.push_back({.id = static_cast<int32_t>(id),
                     .content = piece.text,
                     .special = piece.type == PieceType::Control});
    }
  }
  return own;
}

std::string blank_decoders(bool strip) {
  return std::string(
             R"({"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},)"
             R"({"type":"ByteFallback"},{"type":"Fuse"})") +
         (strip ? R"(,{"type":"Strip","content":" ","start":1,"stop":0}]})" : "]}");
}

std::string bpe_model(const std::vector<std::string>& tokens, const std::string& unknown) {
  return fmt::format(R"({{"type":"BPE","unk_token":{},"fuse_unk":true,"byte_fallback":true,)"
                     R"("vocab":{},"merges":{}}})",
                     unknown.empty() ? "null" : json_quoted(unknown),
                     vocab_text(tokens),
                     merges_text(merges_by_id(tokens, "tokenizer.model")));
}

}  // namespace

std::string llama_json(const SentencePieceModel& model, const FolderConfig& config) {
  const auto tokens = texts_of(model);
  const bool prefix = config_flag(config.tokenizer_config, "add_prefix_space", true);
  const bool legacy = config_flag(config.tokenizer_config, "legacy", false);
  const auto added = collect_added_tokens(tokens, own_tokens(model), config);
  TokenizerParts parts;
  parts.added_tokens = added_tokens_text(added);
  parts.pre_tokenizer =
      fmt::format(R"({{"type":"Metaspace","replacement":"▁","prepend_scheme":"{}","split":false}})",
                  !prefix  ? "never"
                  : legacy ? "always"
                           : "first");
  parts.post_processor = around_text(added, config);
  parts.decoder = blank_decoders(prefix);
  parts.model = bpe_model(tokens, "");
  return parts.joined();
}

std::string gemma_json(const SentencePieceModel& model, const FolderConfig& config) {
  const auto tokens = texts_of(model);
  const auto added = collect_added_tokens(tokens, own_tokens(model), config);
  TokenizerParts parts;
  parts.added_tokens = added_tokens_text(added);
  parts.normalizer = R"({"type":"Replace","pattern":{"String":" "},"content":"▁"})";
  parts.pre_tokenizer =
      R"({"type":"Split","pattern":{"String":" "},"behavior":"MergedWithPrevious","invert":false})";
  parts.post_processor = around_text(added, config);
  parts.decoder = blank_decoders(false);
  parts.model = bpe_model(tokens, model.pieces[static_cast<size_t>(model.unk_id)].text);
  return parts.joined();
}

}  // namespace kamerton::text
