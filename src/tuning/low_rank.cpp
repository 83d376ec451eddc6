// SPDX-License-Identifier: Apache-2.0
#include "low_rank.h"

#include <ATen/ATen.h>

namespace kamerton::tuning {

Factors principal_factors(const at::Tensor& weight, int64_t r, double scale) {
  const at::NoGradGuard no_grad;
  const auto [u, s, vh] = at::linalg_svd(weight.to(at::kFloat), false);
  const at::Tensor root = (s.narrow(0, 0, r) / scale).sqrt();
  return {(root.unsqueeze(1) * vh.narrow(0, 0, r)).contiguous(),
          (u.narrow(1, 0, r) * root).contiguous()};
}

Factors qr_factors(const at::Tensor& weight, int64_t r) {
  const at::NoGradGuard no_grad;
  const auto [q, upper] = at::linalg_qr(weight.to(at::kFloat));
  return {upper.narrow(0, 0, r).contiguous(), q.narrow(1, 0, r).contiguous()};
}

}  // namespace kamerton::tuning
