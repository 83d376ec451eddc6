// SPDX-License-Identifier: Apache-2.0
#include "window_rows.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kamerton/core/random.h"

namespace kamerton::data {
namespace {

constexpr int kRowBits = 32;
/// Pieces of one example are told apart in the sample ids (random draws are keyed by them).
constexpr int kPieceShift = 44;

/// Part of an example as an example; its last token's successor lies in another row.
Example cut_out(const Example& example, const Piece& piece) {
  Example part;
  const auto begin = static_cast<std::ptrdiff_t>(piece.begin);
  const std::ptrdiff_t end = begin + piece.length;
  part.tokens.assign(example.tokens.begin() + begin, example.tokens.begin() + end);
  part.targets.assign(example.targets.begin() + begin, example.targets.begin() + end);
  part.targets.back() = kNoTarget;
  part.source_index = example.source_index;
  return part;
}

}  // namespace

WindowPlanner::WindowPlanner(WindowStrategy strategy,
                             const RowShape& shape,
                             const SampleOrder& order)
    : strategy_(strategy),
      row_length_(static_cast<int32_t>(shape.sequence_length)),
      batch_rows_(shape.rows),
      epoch_(order.size()),
      window_(kWindow),
      seed_(order.seed()),
      shuffle_(order.shuffle()) {
  if (strategy == WindowStrategy::GroupByLength) {
    window_ = std::max<int64_t>(1, std::min(kWindow, epoch_) / batch_rows_) * batch_rows_;
  }
}

std::pair<int64_t, int64_t> WindowPlanner::span(int64_t window) const {
  if (strategy_ == WindowStrategy::GroupByLength) {
    return {window * window_, (window + 1) * window_};
  }
  const int64_t per_epoch = (epoch_ + window_ - 1) / window_;
  const int64_t start = window / per_epoch * epoch_;
  const int64_t begin = window % per_epoch * window_;
  return {start + begin, start + std::min(begin + window_, epoch_)};
}

double WindowPlanner::windows_per_epoch() const {
  const double exact = static_cast<double>(epoch_) / static_cast<double>(window_);
  return strategy_ == WindowStrategy::GroupByLength ? exact : std::ceil(exact);
}

RowPlan WindowPlanner::plan(std::span<const int32_t> lengths) const {
  switch (strategy_) {
    case WindowStrategy::BestFit:
      return pack_best_fit(lengths, row_length_, LongExamples::Cut);
    case WindowStrategy::BestFitSplit:
      return pack_best_fit(lengths, row_length_, LongExamples::Split);
    case WindowStrategy::Wrapped:
      return pack_wrapped(lengths, row_length_);
    case WindowStrategy::GroupByLength:
      break;
  }
  return order_by_length(lengths);
}

int64_t WindowPlanner::shuffled(int64_t window, int64_t row, int64_t rows) const {
  // Grouped: what is left behind the last whole group stays there.
  const int64_t group = strategy_ == WindowStrategy::GroupByLength ? batch_rows_ : 1;
  const int64_t groups = rows / group;
  if (!shuffle_ || row / group >= groups) {
    return row;
  }
  const core::Permutation order(
      static_cast<uint64_t>(groups), seed_, "data.rows", static_cast<uint64_t>(window));
  return static_cast<int64_t>(order(static_cast<uint64_t>(row / group))) * group + row % group;
}

WindowRows::WindowRows(WindowStrategy strategy,
                       const RowShape& shape,
                       SampleOrder order,
                       Fetch fetch,
                       std::vector<int32_t> lengths)
    : shape_(shape),
      order_(std::move(order)),
      planner_(strategy, shape, order_),
      fetch_(std::move(fetch)),
      lengths_(std::move(lengths)) {
  for (int64_t i = 0; i < shape.lane_count; ++i) {
    lanes_.push_back({.window = 0, .row = shape.first_lane + i});
  }
}

WindowRows::Window WindowRows::make_window(int64_t number) const {
  Window window;
  const auto [begin, end] = planner_.span(number);
  window.number = number;
  window.first = begin;
  window.examples.resize(static_cast<size_t>(end - begin));
  std::vector<int32_t> lengths;
  lengths.reserve(window.examples.size());
  for (int64_t k = begin; k < end; ++k) {
    const int64_t index = order_(k);
    if (!lengths_.empty()) {
      lengths.push_back(lengths_[static_cast<size_t>(index)]);
      continue;
    }
    Example& example = window.examples[static_cast<size_t>(k - begin)].emplace(fetch_(index));
    lengths.push_back(static_cast<int32_t>(example.tokens.size()));
  }
  window.plan = planner_.plan(lengths);
  return window;
}

const WindowRows::Window* WindowRows::find_window(int64_t number) const {
  if (windows_.empty() || number < windows_.front().number || number > windows_.back().number) {
    return nullptr;
  }
  return &windows_[static_cast<size_t>(number - windows_.front().number)];
}

WindowRows::Window& WindowRows::window(int64_t number) {
  if (windows_.empty() || number < windows_.front().number || number > windows_.back().number + 1) {
    windows_.clear();
  }
  if (windows_.empty() || number > windows_.back().number) {
    windows_.push_back(make_window(number));
  }
  return windows_[static_cast<size_t>(number - windows_.front().number)];
}

const Example& WindowRows::example(Window& window, int32_t element) {
  std::optional<Example>& held = window.examples[static_cast<size_t>(element)];
  if (!held) {
    held = fetch_(order_(window.first + element));
  }
  return *held;
}

WindowRows::Window& WindowRows::settle(Cursor& cursor) {
  int64_t empty = 0;
  while (true) {
    Window& here = window(cursor.window);
    const int64_t rows = here.plan.rows();
    if (cursor.row < rows) {
      return here;
    }
    cursor.row -= rows;
    ++cursor.window;
    empty = rows == 0 ? empty + static_cast<int64_t>(here.examples.size()) : 0;
    if (empty > order_.size() + kPatience) {
      nothing_usable();
    }
  }
}

/// Lanes come in order: nothing before the first one's window is asked for again.
void WindowRows::drop_old_windows() {
  const auto first = std::min_element(lanes_.begin(), lanes_.end(), [](auto& a, auto& b) {
                       return a.window < b.window;
                     })->window;
  while (!windows_.empty() && windows_.front().number < first) {
    windows_.pop_front();
  }
}

void WindowRows::fill_row(int64_t lane, Batch& batch) {
  Cursor& cursor = lanes_[static_cast<size_t>(lane)];
  Window& here = settle(cursor);
  const int64_t row = planner_.shuffled(here.number, cursor.row, here.plan.rows());
  for (const Piece& piece : here.plan.row(row)) {
    const int64_t id =
        here.first + piece.element + (static_cast<int64_t>(piece.number) << kPieceShift);
    const Example& whole = example(here, piece.element);
    if (piece.length == static_cast<int32_t>(whole.tokens.size())) {
      batch.append(whole, id);
    } else {
      batch.append(cut_out(whole, piece), id);
    }
  }
  ++batch.rows;
  cursor.row += shape_.rows;
  if (lane + 1 == shape_.lane_count) {
    drop_old_windows();
  }
}

std::vector<int64_t> WindowRows::cursors() const {
  std::vector<int64_t> result;
  result.reserve(lanes_.size());
  for (const Cursor& cursor : lanes_) {
    result.push_back(cursor.window << kRowBits | cursor.row);
  }
  return result;
}

void WindowRows::seek(std::span<const int64_t> cursors) {
  windows_.clear();
  for (size_t i = 0; i < lanes_.size(); ++i) {
    lanes_[i] = {.window = cursors[i] >> kRowBits,
                 .row = cursors[i] & ((int64_t{1} << kRowBits) - 1)};
  }
}

bool WindowRows::may_stand(int64_t, int64_t cursor) const {
  return cursor >= 0;
}

double WindowRows::epochs() const {
  double windows = 0;
  for (const Cursor& cursor : lanes_) {
    const Window* here = find_window(cursor.window);
    const int64_t rows = here == nullptr ? 0 : here->plan.rows();
    windows += static_cast<double>(cursor.window) +
               (rows == 0 ? 0.0 : static_cast<double>(cursor.row) / static_cast<double>(rows));
  }
  return windows / static_cast<double>(shape_.lane_count) / planner_.windows_per_epoch();
}

}  // namespace kamerton::data
