// SPDX-License-Identifier: Apache-2.0
// Where each parameter of a unit lies in its flat buffer. True offsets are kept: nothing is derived
// from padding.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

#include "kamerton/tensor/param_unit.h"

namespace kamerton::optim {

/// A shard is a multiple of this many elements: whole vectors of any width, whole cache lines at 2
/// bytes an element.
inline constexpr int64_t kShardMultiple = 64;
/// Parameters start at multiples of this: 32 bytes in bf16, 64 in fp32.
inline constexpr int64_t kSlotMultiple = 16;

struct FlatSlot {
  tensor::ParameterPtr parameter;
  int64_t offset = 0;  ///< elements from the start of the flat buffer
  int64_t numel = 0;
};

/// How a parameter is updated beside the others.
struct Treatment {
  double lr_ratio = 1.0;      ///< of the run's learning rate
  double weight_decay = 0.0;  ///< 0: none
  int64_t born = 0;           ///< updates of the run before its first one (bias correction)
  bool operator==(const Treatment&) const = default;
};

/// A run of elements of one treatment.
struct Segment {
  int64_t begin = 0;
  int64_t end = 0;
  Treatment treatment;
};

struct FlatLayout {
  std::vector<FlatSlot> slots;
  int64_t padded = 0;  ///< length of the flat buffer, a multiple of ranks * kShardMultiple
  int64_t shard = 0;   ///< padded / ranks
};

/// A part [begin, begin + length) of a slot's parameter, found at `flat` in the flat buffer.
struct SlotPart {
  const FlatSlot* slot = nullptr;
  int64_t begin = 0;
  int64_t length = 0;
  int64_t flat = 0;
};

/// What is in one flat buffer: packed weights are bytes, the others numbers of one type.
enum class Held : uint8_t { Trainable, Frozen, Packed };
Held held_as(const tensor::Parameter& parameter);

/// `alignment`: parameters and shards also start at multiples of it (state kept by blocks).
FlatLayout lay_out(const tensor::ParamUnit& unit, Held held, int ranks, int64_t alignment = 1);

/// The parts of parameters that lie in [begin, end) of the flat buffer, in order.
std::vector<SlotPart> parts_within(const FlatLayout& layout, int64_t begin, int64_t end);

/// Covers [0, padded) with as few segments as possible; gaps go with the parameter before them.
std::vector<Segment> segments_of(const FlatLayout& layout,
                                 const std::function<Treatment(const tensor::Parameter&)>& treat);

/// Calls body(offset into the part, length, treatment) for each segment's share of elements
/// [lo, hi) of a part that begins at `part_begin` of the flat buffer.
template <class Body>
void for_segments(const std::vector<Segment>& segments,
                  int64_t part_begin,
                  int64_t lo,
                  int64_t hi,
                  const Body& body) {
  auto segment = std::upper_bound(
      segments.begin(), segments.end(), part_begin + lo, [](int64_t position, const Segment& s) {
        return position < s.end;
      });
  for (; segment != segments.end() && segment->begin < part_begin + hi; ++segment) {
    const int64_t from = std::max(lo, segment->begin - part_begin);
    const int64_t to = std::min(hi, segment->end - part_begin);
    if (from < to) {
      body(from, to - from, segment->treatment);
    }
  }
}

}  // namespace kamerton::optim
