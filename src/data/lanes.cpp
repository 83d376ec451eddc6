// SPDX-License-Identifier: Apache-2.0
#include "lanes.h"

#include <utility>

#include "kamerton/core/error.h"

namespace kamerton::data {

void nothing_usable() {
  throw core::Error(core::ErrorKind::Data,
                    {.where = "data.stream",
                     .what = "a whole pass over the data found no example that can be used",
                     .hint = "data.too_long, data.on_no_target, data.on_bad_record: each now "
                             "leaves out what it meets"});
}

Lanes::Lanes(const RowShape& shape, bool packing, SampleOrder order, Fetch fetch)
    : shape_(shape), packing_(packing), order_(std::move(order)), fetch_(std::move(fetch)) {
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
    const int64_t length = example.length();
    if (used > 0 && used + length > shape_.sequence_length) {
      break;
    }
    batch.append(example, lane.next);
    used += length;
    lane.held.reset();
    lane.next += shape_.rows;
  } while (packing_);
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

bool Lanes::may_stand(int64_t lane, int64_t cursor) const {
  return cursor >= 0 && cursor % shape_.rows == lane;
}

double Lanes::epochs() const {
  double elements = 0;
  for (size_t i = 0; i < lanes_.size(); ++i) {
    const int64_t lane = shape_.first_lane + static_cast<int64_t>(i);
    elements += static_cast<double>((lanes_[i].next - lane) / shape_.rows);
  }
  const double per_lane = elements / static_cast<double>(shape_.lane_count);
  return per_lane * static_cast<double>(shape_.rows) / static_cast<double>(order_.size());
}

}  // namespace kamerton::data
