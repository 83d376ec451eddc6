// SPDX-License-Identifier: Apache-2.0
// Low-rank parts of a matrix.
#pragma once

#include <ATen/core/Tensor.h>

namespace kamerton::tuning {

struct Factors {
  at::Tensor a_RI;
  at::Tensor b_OR;
};

/// PiSSA: the r largest singular parts of W [O, I] as scale * B A, both with the root of the
/// singular values.
Factors principal_factors(const at::Tensor& weight, int64_t r, double scale);
/// OLoRA: the first r columns of Q and rows of R of W = Q R.
Factors qr_factors(const at::Tensor& weight, int64_t r);

}  // namespace kamerton::tuning
