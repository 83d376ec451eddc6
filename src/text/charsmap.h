// SPDX-License-Identifier: Apache-2.0
// SentencePiece's compiled normalization table: a double-array trie from byte strings to their
// replacements.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "aligned_text.h"

namespace kamerton::text {

class Charsmap {
 public:
  /// `blob`: u32 size of the trie, the trie's units, the replacements, each ended by a zero byte.
  Charsmap(std::string_view blob, const std::string& origin);
  static Charsmap from_base64(std::string_view base64, const std::string& origin);

  /// As the `Precompiled` normalizer: whole user-perceived characters first, then single ones.
  void apply(AlignedText& text) const;
  /// The longest key that `s` begins with: its length (0: none) and what replaces it.
  std::pair<size_t, std::string_view> longest(std::string_view s) const;
  /// The shortest such key, as the `Precompiled` normalizer looks words up.
  std::pair<size_t, std::string_view> shortest(std::string_view s) const;

 private:
  template <class Visit>
  void walk(std::string_view s, Visit visit) const;

  std::vector<uint32_t> units_;
  std::string replacements_;
};

}  // namespace kamerton::text
