// SPDX-License-Identifier: Apache-2.0
#include "text_damage.h"

#include <array>
#include <cstdint>

namespace kamerton::data {
namespace {

/// Windows-1252's signs for bytes 0x80 to 0x9F; 0 where it has none.
constexpr std::array<uint32_t, 32> kWindows = {
    0x20AC, 0,      0x201A, 0x0192, 0x201E, 0x2026, 0x2020, 0x2021, 0x02C6, 0x2030, 0x0160,
    0x2039, 0x0152, 0,      0x017D, 0,      0,      0x2018, 0x2019, 0x201C, 0x201D, 0x2022,
    0x2013, 0x2014, 0x02DC, 0x2122, 0x0161, 0x203A, 0x0153, 0,      0x017E, 0x0178};

struct Sign {
  uint32_t code = 0;
  size_t length = 1;
};

/// The character at `at`; the text is valid UTF-8, but nothing is read beyond its end.
Sign sign_at(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) {
    return at + i < text.size() ? static_cast<uint32_t>(static_cast<uint8_t>(text[at + i])) : 0U;
  };
  const uint32_t lead = byte(0);
  if (lead < 0x80) {
    return {lead, 1};
  }
  if (lead < 0xE0) {
    return {(lead & 0x1F) << 6 | (byte(1) & 0x3F), 2};
  }
  if (lead < 0xF0) {
    return {(lead & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F), 3};
  }
  return {(lead & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F),
          4};
}

/// Whether this character, as a byte of Latin-1 or Windows-1252, continues a UTF-8 sequence.
bool is_continuation(uint32_t code) {
  if (code >= 0x80 && code <= 0xBF) {
    return true;
  }
  for (const uint32_t known : kWindows) {
    if (known != 0 && known == code) {
      return true;
    }
  }
  return false;
}

/// A character whose byte would lead two (Latin, with Polish; Cyrillic and Greek letters are too
/// common in pairs) or three bytes of UTF-8, followed by as many as it asks for.
bool starts_mojibake(std::string_view text, size_t at, const Sign& lead) {
  const bool two = lead.code >= 0xC2 && lead.code <= 0xC5;
  const bool three = lead.code >= 0xE0 && lead.code <= 0xEF;
  if (!two && !three) {
    return false;
  }
  const Sign second = sign_at(text, at + lead.length);
  if (!is_continuation(second.code)) {
    return false;
  }
  return two || is_continuation(sign_at(text, at + lead.length + second.length).code);
}

bool is_control(uint32_t code) {
  return (code < 0x20 && code != '\t' && code != '\n' && code != '\r') ||
         (code >= 0x7F && code < 0xA0) || (code >= 0x202A && code <= 0x202E) ||
         (code >= 0x2066 && code <= 0x2069);
}

}  // namespace

TextDamage find_damage(std::string_view text) {
  TextDamage damage;
  for (size_t at = 0; at < text.size();) {
    const auto byte = static_cast<uint8_t>(text[at]);
    if (byte >= 0x20 && byte < 0x7F) {
      ++at;
      continue;
    }
    const Sign sign = sign_at(text, at);
    const bool mojibake = starts_mojibake(text, at, sign);
    damage.mojibake = damage.mojibake || mojibake;
    damage.replacement = damage.replacement || sign.code == 0xFFFD;
    damage.control = damage.control || is_control(sign.code);
    at += sign.length;
    if (mojibake) {  // its second half may look like a control character
      at += sign_at(text, at).length;
    }
  }
  return damage;
}

}  // namespace kamerton::data
