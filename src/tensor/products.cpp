// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

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

/// Without 512-bit vectors, the libraries multiply bf16 more than ten times slower than fp32:
/// operands are widened.
bool widens(const at::Tensor& x) {
#if defined(__x86_64__)
  static const bool slow = __builtin_cpu_supports("avx512bw") == 0;
#else
  static const bool slow = false;
#endif
  return slow && x.is_cpu() && x.scalar_type() == at::kBFloat16;
}

constexpr int64_t kFewRows = 16;
constexpr int64_t kOutputsPerBlock =
    16;  // rows of w that stay in the cache while all rows of x meet them

/// x w^T for a few rows of x (decoding): bound by reading w, which is read once and never widened
/// in memory.
at::Tensor few_rows(const at::Tensor& x_NI, const at::Tensor& w_OI) {
  const int64_t in = w_OI.size(1);
  const int64_t out = w_OI.size(0);
  const at::Tensor x = x_NI.to(at::kFloat).contiguous();
  at::Tensor y = at::empty({x.size(0), out}, x.options());
  const float* rows = x.const_data_ptr<float>();
  const auto* weights = read_ptr<simd::Bf16>(w_OI);
  float* results = y.mutable_data_ptr<float>();
  const int64_t blocks = (out + kOutputsPerBlock - 1) / kOutputsPerBlock;
  at::parallel_for(0, blocks, 8, [&](int64_t first, int64_t last) {
    for (int64_t block = first; block < last; ++block) {
      const int64_t begin = block * kOutputsPerBlock;
      const int64_t count = std::min(kOutputsPerBlock, out - begin);
      for (int64_t n = 0; n < x.size(0); ++n) {
        simd::matvec(rows + n * in, weights + begin * in, results + n * out + begin, count, in);
      }
    }
  });
  return y.to(at::kBFloat16);
}

}  // namespace

at::Tensor product_transposed(const at::Tensor& x_NI, const at::Tensor& w_OI) {
  if (widens(x_NI)) {
    return x_NI.size(0) <= kFewRows && w_OI.is_contiguous()
               ? few_rows(x_NI, w_OI)
               : product_transposed(x_NI.to(at::kFloat), w_OI.to(at::kFloat)).to(at::kBFloat16);
  }
  if (prefers_onednn(x_NI, w_OI)) {
    return onednn_product(x_NI, w_OI);
  }
  return at::mm(x_NI, w_OI.t());
}

at::Tensor product(const at::Tensor& x_NO, const at::Tensor& w_OI) {
  if (widens(x_NO)) {
    return product(x_NO.to(at::kFloat), w_OI.to(at::kFloat)).to(at::kBFloat16);
  }
  if (prefers_onednn(x_NO, w_OI)) {
    return onednn_product(x_NO, w_OI.t());
  }
  return at::mm(x_NO, w_OI);
}

at::Tensor prepared_operand(const at::Tensor& w_OI) {
  return widens(w_OI) ? w_OI.to(at::kFloat) : w_OI;
}

void add_outer_product(at::Tensor& accumulator_OI,
                       const at::Tensor& dy_NO,
                       const at::Tensor& x_NI) {
  if (widens(dy_NO)) {
    accumulator_OI.addmm_(dy_NO.to(at::kFloat).t(), x_NI.to(at::kFloat));
    return;
  }
  if (dy_NO.scalar_type() == accumulator_OI.scalar_type()) {
    accumulator_OI.addmm_(dy_NO.t(), x_NI);
    return;
  }
  add_to_accumulator(accumulator_OI, at::mm(dy_NO.t(), x_NI));
}

}  // namespace kamerton::tensor
