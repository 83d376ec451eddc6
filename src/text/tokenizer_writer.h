// SPDX-License-Identifier: Apache-2.0
// Writes tokenizer.json texts for tokenizers that come in other formats. Large tables are written
// as text: the ordered JSON type is quadratic in building objects.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kamerton/core/json.h"

namespace kamerton::text {

/// The parts of a tokenizer.json, each as JSON text.
struct TokenizerParts {
  std::string added_tokens = "[]";
  std::string normalizer = "null";
  std::string pre_tokenizer = "null";
  std::string post_processor = "null";
  std::string decoder = "null";
  std::string model = {};
  std::string joined() const;
};

/// A token to be found in texts before anything else.
struct NewToken {
  int32_t id = 0;
  std::string content;
  bool special = true, normalized = false, lstrip = false, rstrip = false, single_word = false;
  bool legacy = false;  ///< from added_tokens.json, which has no flags
};

std::string json_quoted(std::string_view text);
/// {"token": id, ...}; empty tokens are gaps.
std::string vocab_text(const std::vector<std::string>& tokens);
/// [["a", "b"], ...]
std::string merges_text(const std::vector<std::pair<std::string, std::string>>& merges);
std::string added_tokens_text(const std::vector<NewToken>& tokens);
std::string byte_level_text(bool add_prefix_space, bool use_regex);
/// TemplateProcessing that puts tokens around a text; "null" where neither is given.
std::string template_text(const std::optional<NewToken>& first,
                          const std::optional<NewToken>& last);
/// Split by the expression, then ByteLevel.
std::string split_then_bytes_text(std::string_view pattern, bool add_prefix_space = false);

}  // namespace kamerton::text
