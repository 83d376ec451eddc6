// SPDX-License-Identifier: Apache-2.0
// Tokenizing data once: a token store that runs read instead of the raw files.
//
// On several ranks: each constructs a StorePreparation, then (with a barrier between the calls) the
// first calls begin(), all call make_parts(), the first calls publish(). Nothing here communicates.
// Parts cut the records at fixed places, so the store's bytes do not depend on ranks or threads.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "kamerton/data/config.h"
#include "kamerton/data/dataset.h"

namespace kamerton::data {

struct PrepareReport {
  std::filesystem::path folder;
  int64_t records = 0;
  int64_t tokens = 0;
  int64_t targets = 0;
  int64_t bad = 0;  ///< left out by data.on_bad_record: skip
  int64_t parts = 0;
  int64_t stored_bytes = 0;
};

class StorePreparation {
 public:
  /// Training data, or the held-out data of `config`. `part_bytes`: raw text of a part, which with
  /// its tokens is what a thread holds in memory. Errors as Dataset; ErrorKind::Config for
  /// data that are tokens already.
  StorePreparation(const DataConfig& config,
                   bool held_out,
                   const text::TokenizerBundle& bundle,
                   int64_t max_positions,
                   int64_t part_bytes = int64_t{16} << 20);
  ~StorePreparation();
  StorePreparation(StorePreparation&&) noexcept;

  const Summary& summary() const;
  const std::filesystem::path& folder() const;
  int64_t raw_bytes() const;
  int64_t parts() const;

  /// One rank: makes the folder, takes its lock until the object goes, sets parts aside that a
  /// store found damaged does not need again, removes what killed runs left half-written. true: the
  /// store is there and whole, nothing is to be done. ErrorKind::Output when another process holds
  /// the lock.
  bool begin(int threads);
  /// Each rank: makes the parts r, r + R, ... that are not there yet, whole. Returns how many were
  /// made. Memory: `threads` parts.
  int64_t make_parts(int rank, int world_size, int threads);
  /// One rank, when all are done: manifest, then the rename that makes the store visible.
  PrepareReport publish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kamerton::data
