// SPDX-License-Identifier: Apache-2.0
// Rows that are planned over a window of the sample stream: best-fit packing, wrapping, grouping by
// length.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "packing.h"
#include "row_source.h"

namespace kamerton::data {

enum class WindowStrategy { BestFit, BestFitSplit, Wrapped, GroupByLength };

/// The rows of all windows, one after the other, are the row stream: row r of a step is the next of
/// it for lane r. Packing windows are 1,000 elements and end with the epoch (as TRL packs); windows
/// of grouped examples are a multiple of the batch and go on over its end, so that groups stay
/// whole. With shuffling the rows of a window come in a random order (grouped: whole groups do).
class WindowPlanner {
 public:
  static constexpr int64_t kWindow = 1000;

  WindowPlanner(WindowStrategy strategy, const RowShape& shape, const SampleOrder& order);

  /// The elements of the stream [first, second) that window `window` holds.
  std::pair<int64_t, int64_t> span(int64_t window) const;
  RowPlan plan(std::span<const int32_t> lengths) const;
  /// Which row of a plan comes as number `row`.
  int64_t shuffled(int64_t window, int64_t row, int64_t rows) const;
  double windows_per_epoch() const;

 private:
  WindowStrategy strategy_;
  int32_t row_length_;
  int64_t batch_rows_;
  int64_t epoch_;   // elements
  int64_t window_;  // elements
  uint64_t seed_;
  bool shuffle_;
};

/// A cursor is (window, row) as window * 2^32 + row; a row beyond the window's last counts on in
/// the next one.
class WindowRows : public RowSource {
 public:
  /// `lengths`: of every example, when they are known; then only the examples of the rows here are
  /// fetched. Empty: all examples of a window are.
  WindowRows(WindowStrategy strategy,
             const RowShape& shape,
             SampleOrder order,
             Fetch fetch,
             std::vector<int32_t> lengths);

  void fill_row(int64_t lane, Batch& batch) override;
  std::vector<int64_t> cursors() const override;
  void seek(std::span<const int64_t> cursors) override;
  bool may_stand(int64_t lane, int64_t cursor) const override;
  double epochs() const override;

 private:
  struct Window {
    int64_t number = 0;
    int64_t first = 0;  ///< stream index of its first element
    RowPlan plan;
    std::vector<std::optional<Example>> examples;
  };
  struct Cursor {
    int64_t window = 0;
    int64_t row = 0;
  };

  Window make_window(int64_t number) const;
  Window& window(int64_t number);
  const Window* find_window(int64_t number) const;
  const Example& example(Window& window, int32_t element);
  /// The window that holds the cursor's row, after moving the cursor there.
  Window& settle(Cursor& cursor);
  void drop_old_windows();

  RowShape shape_;
  SampleOrder order_;
  WindowPlanner planner_;
  Fetch fetch_;
  std::vector<int32_t> lengths_;
  std::vector<Cursor> lanes_;
  std::deque<Window> windows_;  // in order, without gaps
};

}  // namespace kamerton::data
