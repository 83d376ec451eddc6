// SPDX-License-Identifier: Apache-2.0
// Dropout whose mask is a pure function of (seed, token key, feature).
#pragma once

#include <ATen/core/Tensor.h>

namespace kamerton::tuning {

/// x [N, D], keys [N] int64 -> x with each element dropped with probability p, the others divided
/// by (1 - p). Differentiable in x.
at::Tensor dropout(const at::Tensor& x_ND, const at::Tensor& keys_N, double p, uint64_t seed);

}  // namespace kamerton::tuning
