// SPDX-License-Identifier: Apache-2.0
// The model's own tokens, before added ones.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kamerton/core/json.h"

#include "token_map.h"

namespace kamerton::text {

/// Ids are bounded by the number of tokens, so that a hostile id cannot ask for memory.
int64_t highest_allowed_id(size_t tokens);

struct Vocabulary {
  std::vector<std::string> tokens;  ///< by id; gaps are empty and not in `ids`
  TokenMap ids;

  /// {"token": id, ...}; duplicate ids and ids out of range are refused.
  static Vocabulary from_object(const core::Json& object, const std::string& origin);
  /// Ids in order of the list.
  static Vocabulary from_list(const std::vector<std::string>& tokens, const std::string& origin);
  int32_t find(std::string_view token) const { return ids.find(token); }
};

/// The GPT-2 alphabet: each byte as a printable character. -1 where `c` is not in it.
int byte_of_char(uint32_t c);
uint32_t char_of_byte(unsigned char byte);
/// The bytes a token of that alphabet stands for; false when a character is not in it.
bool alphabet_to_bytes(std::string_view token, std::string& bytes);
std::string bytes_to_alphabet(std::string_view bytes);

}  // namespace kamerton::text
