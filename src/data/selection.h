// SPDX-License-Identifier: Apache-2.0
// The records of one side of the split between training and validation.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kamerton/data/dataset.h"

#include "cache_file.h"

namespace kamerton::data {

/// Whether a record belongs to the validation side: the first 64 bits of its BLAKE2b digest below
/// `fraction` of their range. Depends on its bytes alone.
bool is_validation(std::string_view record, double fraction);

/// Numbers of records, in order; on disk when there are many. Immutable, thread-safe.
class Selection {
 public:
  struct Options {
    double fraction = 0;
    Side side = Side::Train;
    std::string key;  ///< of all that the records depend on
    std::optional<std::string> folder;
    uint64_t small_records = 1 << 20;  ///< fewer are kept in memory
  };
  /// Reads every record once.
  static Selection build(int64_t records,
                         const std::function<std::string(int64_t)>& read,
                         const Options& options);

  /// These records.
  static Selection of(std::vector<uint64_t> records);

  int64_t size() const { return static_cast<int64_t>(all().size()); }
  int64_t operator[](int64_t i) const {
    return static_cast<int64_t>(all()[static_cast<size_t>(i)]);
  }

 private:
  std::span<const uint64_t> all() const;
  std::vector<uint64_t> small_;
  std::optional<CacheFile> table_;
};

}  // namespace kamerton::data
