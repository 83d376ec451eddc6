// SPDX-License-Identifier: Apache-2.0
// Causal attention by blocks of query rows, for what the matrix libraries' fused attention does not
// know: windows that are narrower than the document, and capped scores. Memory grows with a
// document's length, not with its square; work grows with the window.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "kamerton/tensor/attention.h"

namespace kamerton::tensor {

/// True when the shape needs this form for some document.
bool needs_blocks(const AttentionShape& shape, const std::vector<int64_t>& offsets);

/// All tensors fp32, contiguous, on the CPU; q and k rotated. out like q; log_sums [heads, N].
void blocked_forward(const AttentionShape& shape,
                     const std::vector<int64_t>& offsets,
                     const at::Tensor& q,
                     const at::Tensor& k,
                     const at::Tensor& v,
                     at::Tensor& out,
                     at::Tensor& log_sums);

struct BlockedOperands {
  const at::Tensor& q;
  const at::Tensor& k;
  const at::Tensor& v;
  const at::Tensor& out;
  const at::Tensor& log_sums;
  const at::Tensor& dout;
};
/// dq like q, written; dk and dv like k, zeros when called. Threads share out documents x key
/// heads: sums over query heads and blocks are made in one order.
void blocked_backward(const AttentionShape& shape,
                      const std::vector<int64_t>& offsets,
                      const BlockedOperands& operands,
                      at::Tensor& dq,
                      at::Tensor& dk,
                      at::Tensor& dv);

}  // namespace kamerton::tensor
