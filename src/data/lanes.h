// SPDX-License-Identifier: Apache-2.0
// Rows of whole examples in stream order: lane l takes elements l, l + rows, l + 2 rows, ...
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "row_source.h"

namespace kamerton::data {

/// One example a row, or next-fit packing: as many of the lane's next examples as fit.
class Lanes : public RowSource {
 public:
  Lanes(const RowShape& shape, bool packing, SampleOrder order, Fetch fetch);

  void fill_row(int64_t lane, Batch& batch) override;
  /// The next stream index of each lane.
  std::vector<int64_t> cursors() const override;
  void seek(std::span<const int64_t> cursors) override;
  bool may_stand(int64_t lane, int64_t cursor) const override;
  double epochs() const override;

 private:
  struct Lane {
    int64_t next = 0;
    std::optional<Example> held;  // the example at `next`, when it did not fit the row before
  };
  /// The example at the lane's cursor; moves the cursor over those that are left out.
  Example& peek(Lane& lane);

  RowShape shape_;
  bool packing_;
  SampleOrder order_;
  Fetch fetch_;
  std::vector<Lane> lanes_;
};

}  // namespace kamerton::data
