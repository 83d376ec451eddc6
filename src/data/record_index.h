// SPDX-License-Identifier: Apache-2.0
// Where each record of a file lies: in memory for small files, in a mapped table on disk for large
// ones.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cache_file.h"
#include "data_file.h"
#include "scan.h"

namespace kamerton::data {

struct IndexOptions {
  uint64_t max_record_bytes = 0;
  std::optional<std::string> folder;
  /// Files below this size are indexed in memory at each start.
  uint64_t small_file_bytes = uint64_t{16} << 20;
};

/// Immutable and thread-safe once built.
class RecordIndex {
 public:
  static RecordIndex build(const DataFile& file, FileForm form, const IndexOptions& options);

  uint64_t size() const { return entries().size(); }
  std::span<const Entry> entries() const;
  const Faults& faults() const { return faults_; }

 private:
  std::vector<Entry> small_;
  std::optional<CacheFile> table_;
  Faults faults_;
};

}  // namespace kamerton::data
