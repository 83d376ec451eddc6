// SPDX-License-Identifier: Apache-2.0
// The one summation kernel of all host backends: it fixes the order, so that they give equal bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include <c10/core/ScalarType.h>

#include "kamerton/comm/reduce_op.h"

namespace kamerton::comm {

/// Bypass: the result is larger than the cache and is not read soon; its lines are not fetched
/// before they are written.
enum class Store { Cached, Bypass };

/// out[i] = inputs[0][i] op inputs[1][i] op ... for i < count, in this order. 16-bit floats
/// accumulate in fp32 and are rounded once (or not at all when `out_type` is Float). Max and Min
/// give NaN when any input is NaN; integers wrap. `out` may be one of the inputs when the types are
/// equal. Uses ATen's threads of the calling rank for long ranges.
void reduce_ranks(std::span<const void* const> inputs,
                  c10::ScalarType in_type,
                  void* out,
                  c10::ScalarType out_type,
                  int64_t count,
                  Reduce op,
                  Store store = Store::Cached);

/// The pairs that reduce_ranks takes: equal supported types, or a 16-bit float into Float.
bool can_reduce(c10::ScalarType in_type, c10::ScalarType out_type);

/// memcpy by ATen's threads when it is long enough to be worth it.
void copy_bytes(void* to, const void* from, int64_t bytes, Store store = Store::Cached);

}  // namespace kamerton::comm
