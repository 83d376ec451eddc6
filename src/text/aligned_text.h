// SPDX-License-Identifier: Apache-2.0
// A text on its way through normalization that can say where each of its bytes came from.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "unicode.h"

namespace kamerton::text {

struct Span {
  uint32_t begin = 0;
  uint32_t end = 0;
  bool operator==(const Span&) const = default;
};

/// A character of a rewritten text. change 0: takes the place of the next character; change 1: was
/// inserted; change -n: takes the place of the next 1 + n characters.
struct NewChar {
  uint32_t c;
  int change;
};

struct AlignedText {
  std::string text;
  std::vector<Span>
      align;  ///< per byte: the original bytes of its character; empty when not tracked
  bool tracked = false;

  AlignedText() = default;
  /// Each character aligned with itself, at `shift` in the original.
  AlignedText(std::string_view original, uint32_t shift, bool track);

  /// Appends in.text[begin, end) with its alignment.
  void copy(const AlignedText& in, size_t begin, size_t end);
  /// Appends `chars`, which take the place of in's text from byte `at` on. An inserted character
  /// shares the alignment of the byte before it.
  void rewrite(const AlignedText& in, size_t at, std::span<const NewChar> chars);
  /// Puts `prefix` before the text, aligned with the first character; nothing when the text is
  /// empty.
  void prepend(std::string_view prefix);
  /// Appends `with` in place of in.text[begin, end): aligned with the last character of that.
  void replace(const AlignedText& in, size_t end, std::string_view with);
};

/// Positions fit 32 bits; a longer text is refused.
inline constexpr size_t kMaxTextBytes = size_t{1} << 31;

}  // namespace kamerton::text
