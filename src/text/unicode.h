// SPDX-License-Identifier: Apache-2.0
// UTF-8 and character classes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kamerton::text {

inline constexpr uint32_t kReplacementChar = 0xFFFD;

/// Classes of a character; the names are those of Unicode's general categories.
enum CharFlag : uint16_t {
  kLetter = 1,        ///< L
  kNumber = 2,        ///< N
  kSpace = 4,         ///< White_Space
  kMark = 8,          ///< M
  kNonspacing = 16,   ///< Mn
  kPunctuation = 32,  ///< P
  kWord = 64,         ///< \w: Alphabetic, M, Nd, Pc, Join_Control
  kUpperSide = 128,   ///< Lu Lt Lm Lo M
  kLowerSide = 256,   ///< Ll Lm Lo M
  kControl = 512,     ///< Cc Cf Cs Co
  kBertPunct =
      1024,       ///< P and ASCII's symbols, as BERT's parts know them; as kControl, kNonspacing
  kUpper = 2048,  ///< Lu Lt
  kLower = 4096,  ///< Ll
  kUnassigned = 8192,  ///< Cn
  kAccent = 16384,     ///< M, as the StripAccents normalizer knows it
  kNumeric = 32768,    ///< N, as the Digits pre-tokenizer knows it
};

uint16_t char_flags(uint32_t c);
/// utf8proc_category_t, for characters too that utf8proc is too old for.
int general_category(uint32_t c);
/// "Lu", ... of what general_category gives.
std::string_view category_name(int category);
/// A combining mark that the reference library's normal forms are too old for.
bool keeps_its_place(uint32_t c);
/// A character that those do not know to be made of others.
bool is_undecomposed(uint32_t c);

/// Length of the character that starts with `lead`, in valid UTF-8.
inline size_t char_length(unsigned char lead) {
  return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

/// The character at s[i]; s must be valid UTF-8 and i a character's start before its end.
inline uint32_t char_at(std::string_view s, size_t i) {
  const auto byte = [&](size_t k) {
    return static_cast<uint32_t>(static_cast<unsigned char>(s[k]));
  };
  const uint32_t lead = byte(i);
  if (lead < 0x80) {
    return lead;
  }
  if (lead < 0xE0) {
    return (lead & 0x1F) << 6 | (byte(i + 1) & 0x3F);
  }
  if (lead < 0xF0) {
    return (lead & 0x0F) << 12 | (byte(i + 1) & 0x3F) << 6 | (byte(i + 2) & 0x3F);
  }
  return (lead & 0x07) << 18 | (byte(i + 1) & 0x3F) << 12 | (byte(i + 2) & 0x3F) << 6 |
         (byte(i + 3) & 0x3F);
}

/// char_at, moving i behind the character.
inline uint32_t next_char(std::string_view s, size_t& i) {
  const uint32_t c = char_at(s, i);
  i += char_length(static_cast<unsigned char>(s[i]));
  return c;
}

/// Start of the character before s[i], i > 0.
inline size_t previous_start(std::string_view s, size_t i) {
  --i;
  while (i > 0 && (static_cast<unsigned char>(s[i]) & 0xC0) == 0x80) {
    --i;
  }
  return i;
}

void append_char(std::string& out, uint32_t c);
std::string to_utf8(uint32_t c);
std::u32string to_chars(std::string_view valid_utf8);

/// Bytes at the start of `s` that are valid UTF-8.
size_t valid_prefix(std::string_view s);
/// Whether `s`, which is not valid from its start, could become so when more bytes follow.
bool is_incomplete_char(std::string_view s);
/// Each longest malformed stretch becomes one U+FFFD (as Rust's from_utf8_lossy does). `origin`,
/// where given, gets for each byte of the result the byte of `s` it came from, and s.size() at the
/// end.
std::string to_valid_utf8(std::string_view s, std::vector<uint32_t>* origin = nullptr);

/// Lower case of one character, one or more characters long.
void append_lower(std::u32string& out, uint32_t c);

}  // namespace kamerton::text
