// SPDX-License-Identifier: Apache-2.0
// y = x W^T + b with the faster of the matrix libraries, and gradients added straight into the
// accumulators.
#pragma once

#include "kamerton/tensor/param_unit.h"

namespace kamerton::tensor {

/// x [N, in], weight [out, in] ([in, out] when transposed), bias [out] or null -> [N, out].
/// Differentiable in x; the gradients
/// of weight and bias are added into Parameter::accumulator() during backward (never returned
/// through autograd). Nothing is computed for what needs no gradient. x is saved, the weight is
/// not: its value is read again in backward.
at::Tensor linear(const at::Tensor& x_NI,
                  const ParameterPtr& weight,
                  const ParameterPtr& bias = nullptr,
                  bool transposed = false);

/// Plain products (no autograd) by the faster library for the shape and machine; equal bits for
/// equal calls.
at::Tensor product_transposed(const at::Tensor& x_NI, const at::Tensor& w_OI);  ///< x w^T   [N, O]
at::Tensor product(const at::Tensor& x_NO, const at::Tensor& w_OI);             ///< x w     [N, I]
/// A weight that many products will use, in the type that this machine multiplies best: itself, or
/// an fp32 copy of a bf16 one where bf16 products are slow.
at::Tensor prepared_operand(const at::Tensor& w_OI);
/// accumulator_OI (fp32) += dy_NO^T x_NI. bf16 operands: the product is rounded to bf16, then added
/// in fp32.
void add_outer_product(at::Tensor& accumulator_OI, const at::Tensor& dy_NO, const at::Tensor& x_NI);

/// Rows of the table: tokens int64 [N] -> [N, D]. `anchor` is any floating tensor of zero elements
/// whose gradient closes a run_unit bracket (an embedding has no floating input of its own);
/// undefined outside of one.
at::Tensor embedding(const at::Tensor& tokens_N,
                     const ParameterPtr& weight,
                     const at::Tensor& anchor = {});

}  // namespace kamerton::tensor
