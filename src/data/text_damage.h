// SPDX-License-Identifier: Apache-2.0
// Traces of a wrong encoding in text that is valid UTF-8.
#pragma once

#include <string_view>

namespace kamerton::data {

struct TextDamage {
  bool replacement = false;  ///< U+FFFD: a decoder has given up before us
  bool mojibake = false;     ///< UTF-8 read as Latin-1 or Windows-1252 and written again: "Ã©"
  bool control = false;      ///< control characters but tab and line ends; bidirectional overrides
};

/// One pass; ASCII costs one comparison a byte.
TextDamage find_damage(std::string_view text);

}  // namespace kamerton::data
