// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace kamerton::text {

/// Finds a set of strings, the longest one at the leftmost place (a byte trie with a table of first
/// bytes).
class Finder {
 public:
  void insert(std::string_view text, int32_t value);
  bool empty() const { return nodes_.size() == 1; }
  /// The value of the longest string that s has at `at`, and its length; -1 when there is none.
  int32_t longest(std::string_view s, size_t at, size_t& length) const;
  bool may_start(char c) const { return first_[static_cast<unsigned char>(c)] != 0; }

 private:
  struct Node {
    int32_t value = -1;
    int32_t child = -1;  ///< first child
    int32_t sibling = -1;
    char byte = 0;
  };
  int32_t find_child(int32_t node, char byte) const;
  std::vector<Node> nodes_ = std::vector<Node>(1);
  std::vector<char> first_ = std::vector<char>(256, 0);
};

}  // namespace kamerton::text
