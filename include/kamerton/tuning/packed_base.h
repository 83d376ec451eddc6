// SPDX-License-Identifier: Apache-2.0
// QLoRA (arXiv 2305.14314): the frozen linear weights of a base in 4 or 8 bits, made wide a few
// rows at a time inside the product. Code book and blocks as bitsandbytes has them.
#pragma once

#include <string>

#include "kamerton/tuning/adapter.h"

namespace kamerton::tuning {

/// Marks the frozen linear weights of the blocks for packing ("nf4" with its scales in 8 bits, or
/// "int8"; "none": nothing): in their units stand their bytes instead, as parameters with
/// `packed`. Before the parameters are placed; ErrorKind::Config for an unknown kind.
void choose_packed(model::Decoder& decoder, const std::string& kind);
/// The bytes of such a parameter (uint8, whole); `base` gives its weight, whole.
at::Tensor pack(const model::Decoder& decoder,
                const tensor::Parameter& packed,
                const ReadBase& base);
/// Bytes that they take, filled or not: a pure function of shapes.
int64_t packed_bytes(const model::Decoder& decoder);

}  // namespace kamerton::tuning
