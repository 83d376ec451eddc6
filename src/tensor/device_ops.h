// SPDX-License-Identifier: Apache-2.0
// The operations of this module on devices that have no kernels of ours: ATen operations with the
// same formulas and the same contract (statistics in fp32, parameter gradients added into
// Parameter::accumulator()). They run on any device; the tests run them on the CPU beside the
// kernels.
#pragma once

#include <tuple>
#include <vector>

#include "kamerton/tensor/activation.h"
#include "kamerton/tensor/attention.h"
#include "kamerton/tensor/decode.h"
#include "kamerton/tensor/param_unit.h"
#include "kamerton/tensor/token_loss.h"

namespace kamerton::tensor::device {

at::Tensor rms_norm(const at::Tensor& x, const ParameterPtr& weight, double eps, bool plus_one);
std::tuple<at::Tensor, at::Tensor> add_rms_norm(const at::Tensor& x,
                                                const at::Tensor& delta,
                                                const ParameterPtr& weight,
                                                double eps,
                                                bool plus_one);
at::Tensor layer_norm(const at::Tensor& x,
                      const ParameterPtr& weight,
                      const ParameterPtr& bias,
                      double eps);
std::tuple<at::Tensor, at::Tensor> add_layer_norm(const at::Tensor& x,
                                                  const at::Tensor& delta,
                                                  const ParameterPtr& weight,
                                                  const ParameterPtr& bias,
                                                  double eps);
/// activation(gate) is rounded to the operands' type before the product.
at::Tensor gated(Activation activation, const at::Tensor& gate, const at::Tensor& up);
at::Tensor activate(Activation activation, const at::Tensor& x);

/// target[tokens[n]] += dy[n], equal tokens in a fixed order.
void add_rows(at::Tensor& target, const at::Tensor& tokens, const at::Tensor& dy);

/// x with the first dimensions of each head rotated; a new tensor, recorded by autograd.
at::Tensor rotated(const at::Tensor& x_NE, const Rotary& rotary, int64_t head_dim);
/// tensor::attend out of place, recorded by autograd.
at::Tensor attend(const at::Tensor& q,
                  const at::Tensor& k,
                  const at::Tensor& v,
                  const Rotary& rotary,
                  const AttentionShape& shape,
                  const std::vector<int64_t>& offsets);
/// Scores with a soft cap, by blocks of query rows; q and k rotated. Differentiable.
at::Tensor attend_capped(const at::Tensor& q,
                         const at::Tensor& k,
                         const at::Tensor& v,
                         const AttentionShape& shape,
                         const std::vector<int64_t>& offsets);
/// One row after the other over gathered pages.
at::Tensor attend_cached(const at::Tensor& q,
                         const std::vector<CachedRow>& rows,
                         const AttentionShape& shape);

/// fp32 logits that a chunk of the head may have on a device: large products, few kernel launches.
inline constexpr int64_t kLossChunkBytes = int64_t{512} << 20;

/// A chunk of n rows of the head, all on the device of the logits.
struct LossRows {
  at::Tensor targets;       ///< int64 [n]
  at::Tensor coefficients;  ///< fp32 [n], of the gradient of -log p; undefined: no gradient
  at::Tensor nll;           ///< fp32 [n], filled
  at::Tensor correct;       ///< uint8 [n], filled; undefined: not asked
};
/// Losses of the rows; with coefficients the logits become their gradient.
void loss_chunk(at::Tensor& logits, const LossRows& rows, const TokenLossOptions& options);

}  // namespace kamerton::tensor::device
