// SPDX-License-Identifier: Apache-2.0
// Records that are the same, or nearly, within the training files and across to the held-out ones.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kamerton/data/verify.h"

#include "findings.h"
#include "hash_groups.h"
#include "shingles.h"

namespace kamerton::data {

/// Records by number: training ones first.
struct NumberedRecords {
  int64_t train = 0;
  int64_t total = 0;
  std::function<Record(int64_t)> record;
  std::function<std::string(int64_t)> place;
};

/// Two keys a record for equality, kBands for likeness. Candidates of a band are compared with the
/// first of their group by their real shingles, so that what is reported is so; each at most once a
/// band. Shingles that a fifth of a sample of records share are left out: a fixed instruction would
/// make all records alike.
class Duplicates {
 public:
  Duplicates(const NumberedRecords& records,
             const DataConfig& config,
             const VerifyOptions& options);

  /// Thread-safe.
  void add(int64_t number, const Record& record);
  /// Once, after the last add().
  void report(Tally& tally);

 private:
  void find_stop_shingles();
  void report_equal(Tally& tally);
  void report_alike(Tally& tally);
  void compare(std::span<const KeyedId> group, Tally& tally);
  std::vector<uint64_t> shingles(int64_t number) const;

  NumberedRecords records_;
  double similarity_;
  StopShingles stop_;
  HashGroups equal_;
  HashGroups alike_;
  std::vector<bool> known_;  ///< reported already
};

/// Held-out records that are training records, by equality alone.
void report_exact_leaks(const NumberedRecords& records, Tally& tally);

}  // namespace kamerton::data
