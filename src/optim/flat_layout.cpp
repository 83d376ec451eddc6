// SPDX-License-Identifier: Apache-2.0
#include "flat_layout.h"

#include <algorithm>

namespace kamerton::optim {

namespace {

int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

}  // namespace

Held held_as(const tensor::Parameter& parameter) {
  if (parameter.packed) {
    return Held::Packed;
  }
  return parameter.trainable ? Held::Trainable : Held::Frozen;
}

FlatLayout lay_out(const tensor::ParamUnit& unit, Held held, int ranks, int64_t alignment) {
  FlatLayout layout;
  int64_t next = 0;
  for (const auto& parameter : unit.parameters) {
    if (held_as(*parameter) != held) {
      continue;
    }
    int64_t numel = 1;
    for (const int64_t extent : parameter->shape) {
      numel *= extent;
    }
    layout.slots.push_back({parameter, next, numel});
    next = round_up(next + numel, std::max(kSlotMultiple, alignment));
  }
  layout.padded = round_up(next, ranks * std::max(kShardMultiple, alignment));
  layout.shard = layout.padded / ranks;
  return layout;
}

std::vector<SlotPart> parts_within(const FlatLayout& layout, int64_t begin, int64_t end) {
  std::vector<SlotPart> parts;
  for (const auto& slot : layout.slots) {
    const int64_t lo = std::max(begin, slot.offset);
    const int64_t hi = std::min(end, slot.offset + slot.numel);
    if (lo < hi) {
      parts.push_back({&slot, lo - slot.offset, hi - lo, lo});
    }
  }
  return parts;
}

std::vector<Segment> segments_of(const FlatLayout& layout,
                                 const std::function<Treatment(const tensor::Parameter&)>& treat) {
  std::vector<Segment> segments;
  for (const auto& slot : layout.slots) {
    const Treatment treatment = treat(*slot.parameter);
    if (!segments.empty()) {
      segments.back().end = slot.offset;
    }
    if (segments.empty() || segments.back().treatment != treatment) {
      segments.push_back({slot.offset, slot.offset, treatment});
    }
  }
  if (!segments.empty()) {
    segments.back().end = layout.padded;
  }
  return segments;
}

}  // namespace kamerton::optim
