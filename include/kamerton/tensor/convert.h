// SPDX-License-Identifier: Apache-2.0
// From the type that a file stores to the type that is computed in.
#pragma once

#include <ATen/core/Tensor.h>

namespace kamerton::tensor {

/// out = stored, in out's type (rounded to nearest even where that is narrower). False when a value
/// is NaN or infinite, in `stored` or by the rounding; out holds it then. Both [N], contiguous,
/// on the CPU, floating. On the calling thread: callers cut large tensors into pieces that stay in
/// the cache, and share them out.
bool convert_finite(const at::Tensor& stored, at::Tensor& out);

}  // namespace kamerton::tensor
