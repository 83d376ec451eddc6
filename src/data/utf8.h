// SPDX-License-Identifier: Apache-2.0
// UTF-8 checked piece by piece.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace kamerton::data {

/// Feed a text in pieces of any size; says where it stops being text. RFC 3629, and no zero bytes.
class Utf8Checker {
 public:
  static constexpr size_t kGood = SIZE_MAX;

  /// The index in `piece` of the first byte that cannot be, or kGood.
  size_t feed(std::string_view piece);
  /// Whether the text may end here.
  bool complete() const { return needed_ == 0; }
  void reset() { needed_ = 0; }

 private:
  int needed_ = 0;      // continuation bytes to come
  uint8_t low_ = 0x80;  // range of the next one
  uint8_t high_ = 0xBF;
};

}  // namespace kamerton::data
