// SPDX-License-Identifier: Apache-2.0
// The order of samples and how lanes fill rows with them.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "kamerton/core/random.h"
#include "kamerton/data/example.h"

namespace kamerton::data {

/// Element k of the sample stream. Not thread-safe: it keeps the permutations of the epochs in use.
class SampleOrder {
 public:
  SampleOrder(int64_t size, uint64_t seed, bool shuffle)
      : size_(size), seed_(seed), shuffle_(shuffle) {}
  int64_t operator()(int64_t k);
  int64_t size() const { return size_; }

 private:
  int64_t size_;
  uint64_t seed_;
  bool shuffle_;
  std::vector<std::pair<int64_t, core::Permutation>> epochs_;
};

/// Some lanes of the global batch, filled row by row.
class Lanes {
 public:
  struct Shape {
    int64_t rows = 1;        ///< lanes of the global batch: the stride within a lane
    int64_t first_lane = 0;  ///< of the lanes here
    int64_t lane_count = 1;
    bool packing = false;
    int64_t sequence_length = 1;
  };
  using Fetch = std::function<Example(int64_t index)>;

  Lanes(const Shape& shape, SampleOrder order, Fetch fetch);

  /// Appends the next row of a lane to the batch: one example, or with packing as many as fit.
  /// ErrorKind::Data when the whole data set holds nothing usable.
  void fill_row(int64_t lane, Batch& batch);

  /// The next stream index of each lane.
  std::vector<int64_t> cursors() const;
  void seek(std::span<const int64_t> cursors);

 private:
  struct Lane {
    int64_t next = 0;
    std::optional<Example> held;  // the example at `next`, when it did not fit the row before
  };
  /// The example at the lane's cursor; moves the cursor over those that are left out.
  Example& peek(Lane& lane);

  Shape shape_;
  SampleOrder order_;
  Fetch fetch_;
  std::vector<Lane> lanes_;
};

}  // namespace kamerton::data
