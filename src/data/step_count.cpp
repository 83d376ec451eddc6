// SPDX-License-Identifier: Apache-2.0
// How many steps an epoch is.
#include <algorithm>
#include <cmath>

#include "kamerton/core/error.h"

#include "stream_parts.h"

namespace kamerton::data {
namespace {

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

/// Next-fit: the lanes are run over the lengths.
int64_t lane_steps(const SampleOrder& order,
                   std::span<const int32_t> lengths,
                   int64_t rows,
                   int64_t sequence_length,
                   int64_t target) {
  std::vector<int64_t> next(static_cast<size_t>(rows));
  for (int64_t lane = 0; lane < rows; ++lane) {
    next[static_cast<size_t>(lane)] = lane;
  }
  int64_t consumed = 0;
  int64_t steps = 0;
  while (consumed < target) {
    for (int64_t& k : next) {
      for (int64_t used = 0;; k += rows, ++consumed) {
        const int64_t length = lengths[static_cast<size_t>(order(k))];
        if (used > 0 && used + length > sequence_length) {
          break;
        }
        used += length;
      }
    }
    ++steps;
  }
  return steps;
}

/// The rows of all windows that hold an element below the target.
int64_t window_steps(const SampleOrder& order,
                     const WindowPlanner& planner,
                     std::span<const int32_t> lengths,
                     int64_t rows,
                     int64_t target) {
  int64_t all = 0;
  std::vector<int32_t> window;
  for (int64_t number = 0; planner.span(number).first < target; ++number) {
    const auto [begin, end] = planner.span(number);
    window.clear();
    for (int64_t k = begin; k < end; ++k) {
      window.push_back(lengths[static_cast<size_t>(order(k))]);
    }
    all += planner.plan(window).rows();
  }
  return ceil_div(all, rows);
}

}  // namespace

std::optional<WindowStrategy> window_strategy(const DataConfig& config) {
  if (!config.packing) {
    return config.group_by_length ? std::optional(WindowStrategy::GroupByLength) : std::nullopt;
  }
  if (config.packing_strategy == "bfd") {
    return WindowStrategy::BestFit;
  }
  if (config.packing_strategy == "bfd_split") {
    return WindowStrategy::BestFitSplit;
  }
  return config.packing_strategy == "wrapped" ? std::optional(WindowStrategy::Wrapped)
                                              : std::nullopt;
}

int64_t count_steps(const DataConfig& config,
                    const SampleOrder& order,
                    double epochs,
                    std::span<const int32_t> lengths,
                    int64_t sequence_length) {
  const auto target =
      static_cast<int64_t>(std::ceil(epochs * static_cast<double>(order.size()) - 1e-6));
  const int64_t rows = config.batch_rows;
  if (!config.packing) {
    return ceil_div(target, rows);
  }
  if (static_cast<int64_t>(lengths.size()) != order.size()) {
    throw core::Error(core::ErrorKind::Internal,
                      {.where = "data.stream",
                       .what = "with packing the length of every example is needed",
                       .got = std::to_string(lengths.size()),
                       .allowed = std::to_string(order.size())});
  }
  if (std::all_of(lengths.begin(), lengths.end(), [](int32_t n) { return n == 0; })) {
    nothing_usable();
  }
  const std::optional<WindowStrategy> strategy = window_strategy(config);
  if (!strategy) {
    return lane_steps(order, lengths, rows, sequence_length, target);
  }
  const RowShape shape{.rows = rows, .sequence_length = sequence_length};
  return window_steps(order, WindowPlanner(*strategy, shape, order), lengths, rows, target);
}

int64_t steps_for_epochs(const DataConfig& config,
                         uint64_t seed,
                         double epochs,
                         int64_t size,
                         std::span<const int32_t> lengths,
                         int64_t sequence_length) {
  return count_steps(
      config, SampleOrder(Mixture(size), seed, config.shuffle), epochs, lengths, sequence_length);
}

}  // namespace kamerton::data
