// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "kamerton/tensor/kernels.h"

#include "device_ops.h"
#include "node.h"
#include "raw.h"

namespace kamerton::tensor {
namespace {

/// Rows are cut into at most this many fixed parts, whose weight gradients are added in order: the
/// sum does not depend on the number of threads.
constexpr int64_t kParts = 16;
constexpr int64_t kRowsPerPart = 32;

struct Norm {
  double eps;
  bool plus_one;

  simd::NormRows rows(int64_t count, int64_t width) const {
    return {count, width, static_cast<float>(eps), plus_one ? 1.0f : 0.0f};
  }
};

/// y = norm(x + delta) * weight; sum = x + delta when delta is defined.
void forward(const Norm& norm,
             const at::Tensor& x,
             const at::Tensor& delta,
             const at::Tensor& w,
             at::Tensor& sum,
             at::Tensor& y,
             at::Tensor& rstd) {
  const int64_t width = x.size(-1);
  const int64_t count = width == 0 ? 0 : x.numel() / width;
  at::parallel_for(0, count, 32, [&](int64_t begin, int64_t end) {
    with_element(x, [&](auto element) {
      using T = decltype(element);
      const int64_t at = begin * width;
      const bool adds = delta.defined();
      simd::norm_forward(simd::NormForward<T>{read_ptr<T>(x) + at,
                                              adds ? read_ptr<T>(delta) + at : nullptr,
                                              read_ptr<T>(w),
                                              adds ? write_ptr<T>(sum) + at : nullptr,
                                              write_ptr<T>(y) + at,
                                              write_ptr<float>(rstd) + begin},
                         norm.rows(end - begin, width));
    });
  });
}

struct NormStep final : BackwardStep {
  Norm norm{};
  at::Tensor x;  // or the sum
  at::Tensor rstd;
  ParameterPtr weight;
  bool with_sum = false;

  /// grads: (dy) or (dsum, dy).
  variable_list backward(variable_list grads) override {
    const at::Tensor& incoming = grads.back();
    if (!incoming.defined()) {
      return with_sum ? variable_list{grads[0], grads[0]} : variable_list{at::Tensor()};
    }
    const at::Tensor dy = incoming.contiguous();
    const at::Tensor dsum = with_sum && grads[0].defined() ? grads[0].contiguous() : at::Tensor();
    at::Tensor dx = at::empty_like(x);
    run(dy, dsum, dx);
    return with_sum ? variable_list{dx, dx} : variable_list{dx};
  }
  void release_variables() override {
    x.reset();
    rstd.reset();
  }

  void run(const at::Tensor& dy, const at::Tensor& dsum, at::Tensor& dx) const {
    const int64_t width = x.size(-1);
    const int64_t count = width == 0 ? 0 : x.numel() / width;
    const int64_t parts = std::clamp<int64_t>((count + kRowsPerPart - 1) / kRowsPerPart, 1, kParts);
    const int64_t per_part = (count + parts - 1) / parts;
    at::Tensor dweights;
    if (weight->trainable) {
      dweights = at::zeros({parts, width}, x.options().dtype(at::kFloat));
    }
    at::parallel_for(0, parts, 1, [&](int64_t first, int64_t last) {
      for (int64_t part = first; part < last; ++part) {
        const int64_t begin = std::min(part * per_part, count);
        const int64_t end = std::min(begin + per_part, count);
        run_part(dy, dsum, dx, dweights.defined() ? dweights[part] : at::Tensor(), begin, end);
      }
    });
    if (dweights.defined()) {
      weight->accumulator().add_(dweights.sum(0));
    }
  }

  void run_part(const at::Tensor& dy,
                const at::Tensor& dsum,
                at::Tensor& dx,
                const at::Tensor& dweight,
                int64_t begin,
                int64_t end) const {
    const int64_t width = x.size(-1);
    with_element(x, [&](auto element) {
      using T = decltype(element);
      const int64_t at = begin * width;
      simd::norm_backward(simd::NormBackward<T>{read_ptr<T>(x) + at,
                                                read_ptr<T>(weight->value),
                                                read_ptr<T>(dy) + at,
                                                dsum.defined() ? read_ptr<T>(dsum) + at : nullptr,
                                                read_ptr<float>(rstd) + begin,
                                                write_ptr<T>(dx) + at,
                                                write_ptr<float>(dweight)},
                          norm.rows(end - begin, width));
    });
  }
};

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const ParameterPtr& weight, double eps, bool plus_one) {
  const Norm norm{eps, plus_one};
  if (!has_kernels(x)) {
    return device::rms_norm(x, weight, eps, plus_one);
  }
  const at::Tensor rows = x.detach().contiguous();
  at::Tensor y;
  at::Tensor rstd;
  {
    const at::NoGradGuard no_grad;
    y = at::empty_like(rows);
    rstd = at::empty({rows.numel() / std::max<int64_t>(rows.size(-1), 1)},
                     rows.options().dtype(at::kFloat));
    at::Tensor none;
    forward(norm, rows, none, weight->value, none, y, rstd);
  }
  if (recording() && (x.requires_grad() || weight->trainable)) {
    auto step = make_step<NormStep>();
    step->norm = norm;
    step->x = rows;
    step->rstd = rstd;
    step->weight = weight;
    connect(step, {x}, {y});
  }
  return y;
}

std::tuple<at::Tensor, at::Tensor> add_rms_norm(const at::Tensor& x,
                                                const at::Tensor& delta,
                                                const ParameterPtr& weight,
                                                double eps,
                                                bool plus_one) {
  const Norm norm{eps, plus_one};
  if (!has_kernels(x)) {
    return device::add_rms_norm(x, delta, weight, eps, plus_one);
  }
  const at::Tensor a = x.detach().contiguous();
  const at::Tensor b = delta.detach().contiguous();
  at::Tensor sum = at::empty_like(a);
  at::Tensor y = at::empty_like(a);
  at::Tensor rstd =
      at::empty({a.numel() / std::max<int64_t>(a.size(-1), 1)}, a.options().dtype(at::kFloat));
  forward(norm, a, b, weight->value, sum, y, rstd);
  if (recording() && (x.requires_grad() || delta.requires_grad() || weight->trainable)) {
    auto step = make_step<NormStep>();
    step->norm = norm;
    step->x = sum.detach();  // not the output itself: that would be a cycle
    step->rstd = rstd;
    step->weight = weight;
    step->with_sum = true;
    connect(step, {x, delta}, {sum, y});
  }
  return {sum, y};
}

}  // namespace kamerton::tensor
