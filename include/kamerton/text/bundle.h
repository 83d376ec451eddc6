// SPDX-License-Identifier: Apache-2.0
// Everything a model folder says about text, read together.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kamerton/text/chat_template.h"
#include "kamerton/text/tokenizer.h"

namespace kamerton::text {

struct TokenizerBundle {
  explicit TokenizerBundle(Tokenizer loaded) : tokenizer(std::move(loaded)) {}

  Tokenizer tokenizer;
  std::optional<ChatTemplate> chat_template;
  std::optional<int32_t> bos, eos, pad;
  std::string bos_text, eos_text, pad_text;  ///< empty where there is none
  /// Ids at which generation stops: generation_config's eos_token_id, else `eos`.
  std::vector<int32_t> stop_ids;
  /// ("bos_token", "<s>"), ... as templates see them.
  std::vector<std::pair<std::string, std::string>> special_tokens;
  /// Files to carry along unchanged when a model is exported (only those that exist).
  std::vector<std::filesystem::path> files;
  /// For content hashing: tokenizer, template and special tokens.
  std::string digest_text() const;
};

/// Reads the tokenizer (Tokenizer::from_folder), tokenizer_config.json, special_tokens_map.json,
/// chat_template.jinja (wins over the template inside tokenizer_config.json),
/// generation_config.json and config.json of a model folder; only the tokenizer must exist. Throws
/// ErrorKind::Io / ErrorKind::Data.
TokenizerBundle load_bundle(const std::filesystem::path& model_dir);

}  // namespace kamerton::text
