// SPDX-License-Identifier: Apache-2.0
#include "norm.h"

#include "kamerton/tensor/kernels.h"

#include "declare.h"

namespace kamerton::model {

at::Tensor Norm::operator()(const at::Tensor& x) const {
  return kind == NormKind::Layer ? tensor::layer_norm(x, weight, bias, eps)
                                 : tensor::rms_norm(x, weight, eps, kind == NormKind::RmsPlusOne);
}

std::tuple<at::Tensor, at::Tensor> Norm::after_sum(const at::Tensor& x,
                                                   const at::Tensor& delta) const {
  return kind == NormKind::Layer
             ? tensor::add_layer_norm(x, delta, weight, bias, eps)
             : tensor::add_rms_norm(x, delta, weight, eps, kind == NormKind::RmsPlusOne);
}

Norm declare_norm(tensor::ParamUnit& unit,
                  const std::string& prefix,
                  const std::string& name,
                  int64_t width,
                  const DecoderConfig& config) {
  Norm norm{.name = prefix + name,
            .kind = config.norm,
            .eps = config.norm_eps,
            .weight = nullptr,
            .bias = nullptr};
  if (name.empty()) {
    return norm;
  }
  norm.weight = declare(unit, prefix + name + ".weight", {width});
  if (config.norm == NormKind::Layer) {
    norm.bias = declare(unit, prefix + name + ".bias", {width});
  }
  return norm;
}

}  // namespace kamerton::model
