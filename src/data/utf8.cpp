// SPDX-License-Identifier: Apache-2.0
#include "utf8.h"

#include <cstring>

namespace kamerton::data {
namespace {

constexpr uint64_t kHighBits = 0x8080808080808080ULL;
constexpr uint64_t kOnes = 0x0101010101010101ULL;

/// Eight bytes, all of them ASCII and none zero.
bool plain(const char* bytes) {
  uint64_t word = 0;
  std::memcpy(&word, bytes, sizeof(word));
  return ((word | (word - kOnes)) & kHighBits) == 0;
}

}  // namespace

size_t Utf8Checker::feed(std::string_view piece) {
  size_t i = 0;
  while (i < piece.size()) {
    if (needed_ == 0) {
      while (i + 8 <= piece.size() && plain(piece.data() + i)) {
        i += 8;
      }
      if (i == piece.size()) {
        break;
      }
    }
    const auto byte = static_cast<uint8_t>(piece[i]);
    if (needed_ > 0) {
      if (byte < low_ || byte > high_) {
        return i;
      }
      --needed_;
      low_ = 0x80;
      high_ = 0xBF;
    } else if (byte >= 0xC2 && byte <= 0xF4) {
      needed_ = byte < 0xE0 ? 1 : byte < 0xF0 ? 2 : 3;
      low_ = byte == 0xE0 ? 0xA0 : byte == 0xF0 ? 0x90 : 0x80;  // no overlong forms
      high_ = byte == 0xED   ? 0x9F
              : byte == 0xF4 ? 0x8F
                             : 0xBF;  // no surrogates, no more than U+10FFFF
    } else if (byte == 0 || byte >= 0x80) {
      return i;
    }
    ++i;
  }
  return kGood;
}

}  // namespace kamerton::data
