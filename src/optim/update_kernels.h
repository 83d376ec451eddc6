// SPDX-License-Identifier: Apache-2.0
// The inner loops: free of ATen, one thread each, the same bits for an element whatever lies around
// it.
#pragma once

#include <cstdint>

namespace kamerton::optim {

/// AdamW (arXiv 1711.05101): p -= lr*wd*p; m += (1-b1)(g-m); v = b2*v + (1-b2)g*g; p -= step_size *
/// m / (sqrt(v)*inv_sqrt_bias2 + eps).
struct AdamwFactors {
  float clip = 1.0F;
  float keep = 1.0F;  ///< 1 - lr * weight_decay
  float one_minus_beta1 = 0.1F;
  float beta2 = 0.999F;
  float one_minus_beta2 = 0.001F;
  float step_size = 0.0F;       ///< lr / (1 - beta1^t)
  float inv_sqrt_bias2 = 1.0F;  ///< 1 / sqrt(1 - beta2^t)
  float eps = 1e-8F;
};

/// SGD as torch.optim.SGD: g += wd*p; buffer = momentum*buffer + g; p -= lr*buffer.
struct SgdFactors {
  float clip = 1.0F;
  float weight_decay = 0.0F;
  float momentum = 0.0F;
  float lr = 0.0F;
};

/// Arrays of n. `low`: bf16 copy of the parameters to write, or null.
void adamw(float* param,
           uint16_t* low,
           const float* grad,
           float* exp_avg,
           float* exp_avg_sq,
           int64_t n,
           const AdamwFactors& factors);
/// `buffer` may be null when momentum is 0.
void sgd(float* param,
         uint16_t* low,
         const float* grad,
         float* buffer,
         int64_t n,
         const SgdFactors& factors);

/// Sum of squares in double, in a fixed order.
double sum_of_squares(const float* values, int64_t n);

}  // namespace kamerton::optim
