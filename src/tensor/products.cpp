// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include "kamerton/tensor/linear.h"

#include "raw.h"

namespace kamerton::tensor {
namespace {

using PointwiseOp = at::Tensor(const at::Tensor&,
                               const at::Tensor&,
                               const std::optional<at::Tensor>&,
                               c10::string_view,
                               c10::List<std::optional<at::Scalar>>,
                               std::optional<c10::string_view>);

/// oneDNN's x w^T, reachable through the dispatcher only.
at::Tensor onednn_product(const at::Tensor& x, const at::Tensor& w) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mkldnn::_linear_pointwise", "")
                             .typed<PointwiseOp>();
  return op.call(x, w, std::nullopt, "none", c10::List<std::optional<at::Scalar>>(), std::nullopt);
}

/// Which library multiplies is a fixed rule of type, shape and machine, never a measurement: the
/// same call must give the same bits in every run. On AMD, oneDNN's fp32 beats MKL's
/// (benchmarks/results); elsewhere MKL is at home.
bool prefers_onednn(const at::Tensor& x, const at::Tensor& w) {
  static const bool amd = __builtin_cpu_is("amd") != 0;
  return amd && x.is_cpu() && x.scalar_type() == at::kFloat && x.size(0) >= 16 && x.numel() > 0 &&
         w.numel() > 0;
}

}  // namespace

at::Tensor product_transposed(const at::Tensor& x_NI, const at::Tensor& w_OI) {
  if (prefers_onednn(x_NI, w_OI)) {
    return onednn_product(x_NI, w_OI);
  }
  return at::mm(x_NI, w_OI.t());
}

at::Tensor product(const at::Tensor& x_NO, const at::Tensor& w_OI) {
  if (prefers_onednn(x_NO, w_OI)) {
    return onednn_product(x_NO, w_OI.t());
  }
  return at::mm(x_NO, w_OI);
}

void add_outer_product(at::Tensor& accumulator_OI,
                       const at::Tensor& dy_NO,
                       const at::Tensor& x_NI) {
  if (dy_NO.scalar_type() == accumulator_OI.scalar_type()) {
    accumulator_OI.addmm_(dy_NO.t(), x_NI);
    return;
  }
  add_to_accumulator(accumulator_OI, at::mm(dy_NO.t(), x_NI));
}

}  // namespace kamerton::tensor
