// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include <ATen/ATen.h>

#include "dropout.h"
#include "method.h"

namespace kamerton::tuning {

Initial Initial::kaiming(int64_t fan_in) {
  return uniform(1.0 / std::sqrt(static_cast<double>(fan_in)));
}

at::Tensor ModuleUse::dropped(const at::Tensor& x, double probability) const {
  return probability > 0 && keys.defined()
             ? dropout(x, keys, probability, switches.seed ^ (number * 0x9E3779B97F4A7C15ULL))
             : x;
}

at::Tensor ModuleUse::weight() const {
  if (linear.packed != nullptr) {
    return linear.packed->whole();
  }
  const at::Tensor stored = linear.weight->value.detach();
  return linear.transposed ? stored.t() : stored;
}

at::Tensor WeightChange::apply(const ModuleUse& use, const at::Tensor& x) const {
  const at::Tensor extra = delta(use.weight()).to(x.scalar_type());
  return use.linear.product(x) + at::mm(use.dropped(x, dropout()), extra.t());
}

at::Tensor InputChange::apply(const ModuleUse& use, const at::Tensor& x) const {
  return use.linear.product(turned(x).to(x.scalar_type()));
}

at::Tensor InputChange::merged(const at::Tensor& weight) const {
  // y = (x R) W^T = x (W R^T)^T
  return at::mm(weight, turned(at::eye(weight.size(1), weight.options())).t());
}

}  // namespace kamerton::tuning
