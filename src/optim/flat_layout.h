// SPDX-License-Identifier: Apache-2.0
// Where each parameter of a unit lies in its flat buffer. True offsets are kept: nothing is derived
// from padding.
#pragma once

#include <cstdint>
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

/// A run of elements that are all decayed or all not.
struct DecaySegment {
  int64_t begin = 0;
  int64_t end = 0;
  bool decay = false;
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

FlatLayout lay_out(const tensor::ParamUnit& unit, bool trainable, int ranks);

/// The parts of parameters that lie in [begin, end) of the flat buffer, in order.
std::vector<SlotPart> parts_within(const FlatLayout& layout, int64_t begin, int64_t end);

/// Covers [0, padded) with as few segments as possible; gaps go with the parameter before them.
std::vector<DecaySegment> decay_segments(const FlatLayout& layout, bool decay_1d);

}  // namespace kamerton::optim
