// SPDX-License-Identifier: Apache-2.0
// Texts of control tokens where people write.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace kamerton::text {
struct TokenizerBundle;
}

namespace kamerton::data {

struct MarkersSeen {
  bool special = false;  ///< a special token of this tokenizer
  bool foreign = false;  ///< a marker of other models' chat templates, plain text here
};

class MarkerFinder {
 public:
  explicit MarkerFinder(const text::TokenizerBundle& bundle);
  MarkersSeen find(std::string_view text) const;

 private:
  void add(const std::string& marker, bool special);

  /// By the first two bytes, as (first << 8 | second).
  std::unordered_map<int, std::vector<std::pair<std::string, bool>>> by_start_;
  std::string starts_;  ///< the first bytes
};

}  // namespace kamerton::data
