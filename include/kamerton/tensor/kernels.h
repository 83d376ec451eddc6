// SPDX-License-Identifier: Apache-2.0
// Fused element-wise steps of a transformer block. fp32 or bf16 in and out, fp32 inside; CPU
// kernels of our own, ATen operations elsewhere. All are differentiable (first order) and
// deterministic.
#pragma once

#include <tuple>

#include "kamerton/tensor/activation.h"
#include "kamerton/tensor/param_unit.h"

namespace kamerton::tensor {

/// x / sqrt(mean(x^2) + eps) * weight over the last dimension (Zhang & Sennrich 2019); weight [D].
/// plus_one: times (1 + weight), as Gemma. x [..., D]; saves x and one float a row.
at::Tensor rms_norm(const at::Tensor& x,
                    const ParameterPtr& weight,
                    double eps,
                    bool plus_one = false);

/// sum = x + delta; returns (sum, rms_norm(sum)). One pass over memory each way.
std::tuple<at::Tensor, at::Tensor> add_rms_norm(const at::Tensor& x,
                                                const at::Tensor& delta,
                                                const ParameterPtr& weight,
                                                double eps,
                                                bool plus_one = false);

/// (x - mean) / sqrt(variance + eps) * weight + bias over the last dimension (Ba et al. 2016);
/// weight [D], bias [D] or null. x [..., D]; saves x and two floats a row.
at::Tensor layer_norm(const at::Tensor& x,
                      const ParameterPtr& weight,
                      const ParameterPtr& bias,
                      double eps);

/// sum = x + delta; returns (sum, layer_norm(sum)).
std::tuple<at::Tensor, at::Tensor> add_layer_norm(const at::Tensor& x,
                                                  const at::Tensor& delta,
                                                  const ParameterPtr& weight,
                                                  const ParameterPtr& bias,
                                                  double eps);

/// False when a value is NaN or infinite. fp32 or bf16, contiguous, CPU (others through ATen).
bool all_finite(const at::Tensor& x);

/// activation(gate) * up, element-wise; gate and up [N, F] (Shazeer 2020).
at::Tensor gated(Activation activation, const at::Tensor& gate, const at::Tensor& up);
/// The same where one product made both: gate_up [N, 2 F], gate first -> [N, F].
at::Tensor gated(Activation activation, const at::Tensor& gate_up);
/// activation(x), element-wise.
at::Tensor activate(Activation activation, const at::Tensor& x);

/// silu(gate) * up.
inline at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) {
  return gated(Activation::Silu, gate, up);
}

}  // namespace kamerton::tensor
