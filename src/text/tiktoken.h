// SPDX-License-Identifier: Apache-2.0
// tiktoken's rank files: a line a token, its bytes in base64 and its rank.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tokenizer_writer.h"

namespace kamerton::text {

/// What a rank file leaves out: the expression that cuts texts into words, and special tokens.
struct TiktokenStyle {
  std::string pattern;
  std::vector<NewToken> special = {};
  std::string first = {};  ///< a token put before every text, or none
};

/// Tokens as bytes, by id (gaps are empty). Throws ErrorKind::Data.
std::vector<std::string> read_tiktoken(std::string_view text, const std::string& origin);
/// Whether the text begins with such a line.
bool looks_like_tiktoken(std::string_view text);

/// The style of a file by its name: cl100k_base, o200k_base, o200k_harmony, p50k_base, r50k_base,
/// gpt2, qwen; any other name (tokenizer.model) is Llama 3's. `ranks`: how many ids the file has.
TiktokenStyle tiktoken_style(std::string_view file_name, size_t ranks);

/// A tokenizer.json that encodes as tiktoken does.
std::string tiktoken_json(const std::vector<std::string>& tokens, const TiktokenStyle& style);

}  // namespace kamerton::text
