// SPDX-License-Identifier: Apache-2.0
#include "lanes.h"

#include <algorithm>
#include <cmath>

#include "kamerton/core/error.h"
#include "kamerton/data/stream.h"

namespace kamerton::data {
namespace {

// Lanes drift apart by a few epochs at most; more would only cost rebuilding.
constexpr size_t kEpochsKept = 8;
// Beyond one pass: bad luck with a small set is not an empty one.
constexpr int64_t kPatience = 4096;

[[noreturn]] void nothing_usable() {
  throw core::Error(core::ErrorKind::Data,
                    {.where = "data.stream",
                     .what = "a whole pass over the data found no example that can be used",
                     .hint = "data.too_long, data.on_no_target, data.on_bad_record: each now "
                             "leaves out what it meets"});
}

}  // namespace

int64_t SampleOrder::operator()(int64_t k) {
  const int64_t epoch = k / size_;
  const int64_t position = k % size_;
  if (!shuffle_) {
    return position;
  }
  auto at = std::find_if(
      epochs_.begin(), epochs_.end(), [&](const auto& known) { return known.first == epoch; });
  if (at == epochs_.end()) {
    if (epochs_.size() == kEpochsKept) {
      epochs_.erase(std::min_element(
          epochs_.begin(), epochs_.end(), [](auto& a, auto& b) { return a.first < b.first; }));
    }
    epochs_.emplace_back(
        epoch,
        core::Permutation(
            static_cast<uint64_t>(size_), seed_, "data.order", static_cast<uint64_t>(epoch)));
    at = std::prev(epochs_.end());
  }
  return static_cast<int64_t>(at->second(static_cast<uint64_t>(position)));
}

Lanes::Lanes(const Shape& shape, SampleOrder order, Fetch fetch)
    : shape_(shape), order_(std::move(order)), fetch_(std::move(fetch)) {
  lanes_.resize(static_cast<size_t>(shape.lane_count));
  for (size_t i = 0; i < lanes_.size(); ++i) {
    lanes_[i].next = shape.first_lane + static_cast<int64_t>(i);
  }
}

Example& Lanes::peek(Lane& lane) {
  const int64_t limit = order_.size() + kPatience;
  for (int64_t tries = 0; !lane.held; ++tries) {
    if (tries > limit) {
      nothing_usable();
    }
    Example example = fetch_(order_(lane.next));
    if (example.tokens.empty()) {
      lane.next += shape_.rows;
    } else {
      lane.held = std::move(example);
    }
  }
  return *lane.held;
}

void Lanes::fill_row(int64_t lane_number, Batch& batch) {
  Lane& lane = lanes_[static_cast<size_t>(lane_number)];
  int64_t used = 0;
  do {
    const Example& example = peek(lane);
    const auto length = static_cast<int64_t>(example.tokens.size());
    if (used > 0 && used + length > shape_.sequence_length) {
      break;
    }
    batch.append(example, lane.next);
    used += length;
    lane.held.reset();
    lane.next += shape_.rows;
  } while (shape_.packing);
  ++batch.rows;
}

std::vector<int64_t> Lanes::cursors() const {
  std::vector<int64_t> result;
  result.reserve(lanes_.size());
  for (const Lane& lane : lanes_) {
    result.push_back(lane.next);
  }
  return result;
}

void Lanes::seek(std::span<const int64_t> cursors) {
  for (size_t i = 0; i < lanes_.size(); ++i) {
    lanes_[i] = {.next = cursors[i], .held = std::nullopt};
  }
}

int64_t steps_for_epochs(const DataConfig& config,
                         uint64_t seed,
                         double epochs,
                         int64_t size,
                         std::span<const int32_t> lengths,
                         int64_t sequence_length) {
  const double wanted = std::ceil(epochs * static_cast<double>(size) - 1e-6);
  const auto target = static_cast<int64_t>(wanted);
  const int64_t rows = config.batch_rows;
  if (!config.packing) {
    return (target + rows - 1) / rows;
  }
  if (static_cast<int64_t>(lengths.size()) != size) {
    throw core::Error(core::ErrorKind::Internal,
                      {.where = "data.stream",
                       .what = "with packing the length of every example is needed",
                       .got = std::to_string(lengths.size()),
                       .allowed = std::to_string(size)});
  }
  if (std::all_of(lengths.begin(), lengths.end(), [](int32_t n) { return n == 0; })) {
    nothing_usable();
  }
  SampleOrder order(size, seed, config.shuffle);
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

}  // namespace kamerton::data
