// SPDX-License-Identifier: Apache-2.0
// What one record alone can be told of.
#pragma once

#include <cstdint>
#include <optional>

#include "dataset_impl.h"
#include "findings.h"
#include "markers.h"

namespace kamerton::data {

/// Over the records of one set.
struct RecordSums {
  int64_t records = 0;
  int64_t prepared = 0;  ///< tokenized and masked
  int64_t tokens = 0;
  int64_t targets = 0;
  int64_t with_targets = 0;
  int64_t with_end = 0;  ///< an end token is trained
  int64_t good = 0;      ///< of answers with a label
  int64_t bad = 0;
  void merge(const RecordSums& other);
};

/// Immutable; check() may be called from many threads.
class RecordCheck {
 public:
  explicit RecordCheck(const Dataset::Impl& data) : data_(&data), markers_(data.bundle) {}

  /// Record `index` of the set, counted as number `number`. `closely`: also renders the chat
  /// template once more to see what it drops. nullopt when it cannot be read.
  std::optional<Record> check(
      int64_t index, int64_t number, bool closely, Tally& tally, RecordSums& sums) const;

 private:
  void check_texts(const Record& record, int64_t number, Tally& tally) const;
  void check_tokens(
      const Record& record, int64_t index, int64_t number, Tally& tally, RecordSums& sums) const;
  void check_fit(const Tokenized& tokenized,
                 int64_t index,
                 int64_t number,
                 Tally& tally,
                 RecordSums& sums) const;
  void check_rendering(const Record& record, int64_t number, Tally& tally) const;
  bool is_end(int32_t id) const;

  const Dataset::Impl* data_;
  MarkerFinder markers_;
};

}  // namespace kamerton::data
