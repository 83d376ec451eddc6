// SPDX-License-Identifier: Apache-2.0
// Causal attention over documents laid one after the other, with the rotary embedding applied on
// the way.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

namespace kamerton::tensor {

/// cos and sin of position * frequency, already multiplied by the scaling method's attention
/// factor; fp32 [N, R/2], R = rotated dimensions of a head (half-split: dimension i turns with i +
/// R/2).
struct Rotary {
  at::Tensor cos_NR;
  at::Tensor sin_NR;
};

/// Rotates the first R dimensions of every head of x [N, heads * head_dim] in place; inverse turns
/// back.
void rotate(at::Tensor& x_NE, const Rotary& rotary, int64_t head_dim, bool inverse = false);

struct AttentionShape {
  int64_t heads = 0;
  int64_t kv_heads = 0;  ///< divides heads
  int64_t head_dim = 0;
  double scale = 0;     ///< of the scores; commonly 1 / sqrt(head_dim)
  int64_t window = 0;   ///< a token sees itself and window - 1 before it; 0: all before it
  double soft_cap = 0;  ///< scores = cap * tanh(scores / cap), after the scale (Gemma 2); 0: none
};

/// q [N, heads * head_dim], k and v [N, kv_heads * head_dim] -> [N, heads * head_dim]. Document d
/// is rows [offsets[d], offsets[d + 1]); nothing is seen across documents. q and k are CONSUMED:
/// rotated in place (skipped when rotary.cos_NR is undefined), so nobody else may have saved them.
/// Differentiable.
at::Tensor attend(const at::Tensor& q,
                  const at::Tensor& k,
                  const at::Tensor& v,
                  const Rotary& rotary,
                  const AttentionShape& shape,
                  const std::shared_ptr<const std::vector<int64_t>>& offsets);

}  // namespace kamerton::tensor
