// SPDX-License-Identifier: Apache-2.0
// The order of samples, and what fills the rows of a rank with them.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "kamerton/data/example.h"

#include "mixture.h"

namespace kamerton::data {

/// Element k of the sample stream: a pure function of (seed, k).
class SampleOrder {
 public:
  SampleOrder(Mixture mixture, uint64_t seed, bool shuffle)
      : mixture_(std::move(mixture)), seed_(seed), shuffle_(shuffle) {}
  int64_t operator()(int64_t k) const {
    return mixture_.example(k / mixture_.size(), k % mixture_.size(), seed_, shuffle_);
  }
  int64_t size() const { return mixture_.size(); }
  uint64_t seed() const { return seed_; }
  bool shuffle() const { return shuffle_; }

 private:
  Mixture mixture_;
  uint64_t seed_;
  bool shuffle_;
};

using Fetch = std::function<Example(int64_t index)>;

/// Which rows of a step are here, and what they are.
struct RowShape {
  int64_t rows = 1;        ///< lanes of the global batch
  int64_t first_lane = 0;  ///< of the lanes here
  int64_t lane_count = 1;
  int64_t sequence_length = 1;
};

/// Some lanes of the global batch. A lane's place is one number (a cursor), which does not depend
/// on which other lanes are here. Not thread-safe.
class RowSource {
 public:
  virtual ~RowSource() = default;
  /// Appends the next row of lane `lane` (of those here) to the batch; lanes in order within a
  /// step. ErrorKind::Data when the whole data set holds nothing usable.
  virtual void fill_row(int64_t lane, Batch& batch) = 0;
  virtual std::vector<int64_t> cursors() const = 0;
  virtual void seek(std::span<const int64_t> cursors) = 0;
  /// Whether global lane `lane` may stand at a cursor.
  virtual bool may_stand(int64_t lane, int64_t cursor) const = 0;
  /// Epochs consumed by the lanes here (mean).
  virtual double epochs() const = 0;
};

/// Throws: a whole pass found no example that can be used.
[[noreturn]] void nothing_usable();

/// Beyond one pass: bad luck with a small set is not an empty one.
inline constexpr int64_t kPatience = 4096;

}  // namespace kamerton::data
