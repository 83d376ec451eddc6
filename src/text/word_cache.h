// SPDX-License-Identifier: Apache-2.0
// Words met lately by this thread, of all models, and their ids.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "token_map.h"

namespace kamerton::text {

/// One model's part in the cache of the calling thread: direct-mapped, the last comer stays.
class WordCache {
 public:
  static constexpr size_t kLongestWord = 22;  ///< bytes
  WordCache();

  static uint64_t hash(std::string_view word) { return hash_bytes(word.data(), word.size()); }
  /// Appends the word's ids; false when it is not there.
  bool find(uint64_t hash, std::string_view word, std::vector<int32_t>& ids) const;
  /// Remembers ids[from, end), unless there are too many.
  void put(uint64_t hash,
           std::string_view word,
           const std::vector<int32_t>& ids,
           size_t from) const;

 private:
  uint32_t serial_;  ///< tells this model's entries from another's
};

}  // namespace kamerton::text
