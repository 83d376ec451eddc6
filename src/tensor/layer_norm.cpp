// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "kamerton/tensor/kernels.h"

#include "device_ops.h"
#include "node.h"
#include "raw.h"

namespace kamerton::tensor {
namespace {

/// As in norm.cpp: parts of rows whose sums are added in order, whatever the number of threads.
constexpr int64_t kParts = 16;
constexpr int64_t kRowsPerPart = 32;

struct Rows {
  int64_t count;
  int64_t width;

  explicit Rows(const at::Tensor& x)
      : count(x.size(-1) == 0 ? 0 : x.numel() / x.size(-1)), width(x.size(-1)) {}
};

struct LayerNormStep final : BackwardStep {
  double eps = 0;
  at::Tensor x;  // or the sum
  at::Tensor mean;
  at::Tensor rstd;
  ParameterPtr weight;
  ParameterPtr bias;
  bool with_sum = false;

  /// y = norm(x) or, when delta is defined, of the sum of both, which x then becomes.
  at::Tensor forward(const at::Tensor& delta) {
    const Rows rows(x);
    at::Tensor y = at::empty_like(x);
    at::Tensor sum = delta.defined() ? at::empty_like(x) : at::Tensor();
    mean = at::empty({rows.count}, x.options().dtype(at::kFloat));
    rstd = at::empty_like(mean);
    at::parallel_for(0, rows.count, 32, [&](int64_t begin, int64_t end) {
      with_element(x, [&](auto element) {
        using T = decltype(element);
        const int64_t at = begin * rows.width;
        const bool adds = delta.defined();
        simd::layer_norm_forward(
            simd::LayerNormForward<T>{read_ptr<T>(x) + at,
                                      adds ? read_ptr<T>(delta) + at : nullptr,
                                      read_ptr<T>(weight->value),
                                      bias == nullptr ? nullptr : read_ptr<T>(bias->value),
                                      adds ? write_ptr<T>(sum) + at : nullptr,
                                      write_ptr<T>(y) + at,
                                      write_ptr<float>(mean) + begin,
                                      write_ptr<float>(rstd) + begin},
            {end - begin, rows.width, static_cast<float>(eps), 0.0f});
      });
    });
    if (delta.defined()) {
      x = sum;
    }
    return y;
  }

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
    mean.reset();
    rstd.reset();
  }

  void run(const at::Tensor& dy, const at::Tensor& dsum, at::Tensor& dx) const {
    const Rows rows(x);
    const int64_t wanted = (rows.count + kRowsPerPart - 1) / kRowsPerPart;
    const int64_t parts = std::clamp<int64_t>(wanted, 1, kParts);
    const int64_t per_part = (rows.count + parts - 1) / parts;
    const auto sums = [&](const ParameterPtr& parameter) {
      return is_trainable(parameter) ? at::zeros({parts, rows.width}, x.options().dtype(at::kFloat))
                                     : at::Tensor();
    };
    at::Tensor dweights = sums(weight);
    at::Tensor dbiases = sums(bias);
    at::parallel_for(0, parts, 1, [&](int64_t first, int64_t last) {
      for (int64_t part = first; part < last; ++part) {
        const auto of = [&](const at::Tensor& all) { return all.defined() ? all[part] : all; };
        const int64_t begin = std::min(part * per_part, rows.count);
        const int64_t end = std::min(begin + per_part, rows.count);
        run_part({dy, dsum, dx, of(dweights), of(dbiases)}, begin, end);
      }
    });
    if (dweights.defined()) {
      weight->accumulator().add_(dweights.sum(0));
    }
    if (dbiases.defined()) {
      bias->accumulator().add_(dbiases.sum(0));
    }
  }

  struct Gradients {
    const at::Tensor& dy;
    const at::Tensor& dsum;
    at::Tensor& dx;
    at::Tensor dweight;
    at::Tensor dbias;
  };

  void run_part(const Gradients& g, int64_t begin, int64_t end) const {
    const int64_t width = x.size(-1);
    with_element(x, [&](auto element) {
      using T = decltype(element);
      const int64_t at = begin * width;
      simd::layer_norm_backward(
          simd::LayerNormBackward<T>{read_ptr<T>(x) + at,
                                     read_ptr<T>(weight->value),
                                     read_ptr<T>(g.dy) + at,
                                     g.dsum.defined() ? read_ptr<T>(g.dsum) + at : nullptr,
                                     read_ptr<float>(mean) + begin,
                                     read_ptr<float>(rstd) + begin,
                                     write_ptr<T>(g.dx) + at,
                                     write_ptr<float>(g.dweight),
                                     write_ptr<float>(g.dbias)},
          {end - begin, width, static_cast<float>(eps), 0.0f});
    });
  }
};

std::shared_ptr<LayerNormStep> step_of(const at::Tensor& x,
                                       const ParameterPtr& weight,
                                       const ParameterPtr& bias,
                                       double eps) {
  auto step = make_step<LayerNormStep>();
  step->eps = eps;
  step->x = x.detach().contiguous();
  step->weight = weight;
  step->bias = bias;
  return step;
}

}  // namespace

at::Tensor layer_norm(const at::Tensor& x,
                      const ParameterPtr& weight,
                      const ParameterPtr& bias,
                      double eps) {
  if (!has_kernels(x)) {
    return device::layer_norm(x, weight, bias, eps);
  }
  const auto step = step_of(x, weight, bias, eps);
  at::Tensor y = step->forward({});
  if (recording() && (x.requires_grad() || weight->trainable || is_trainable(bias))) {
    connect(step, {x}, {y});
  }
  return y;
}

std::tuple<at::Tensor, at::Tensor> add_layer_norm(const at::Tensor& x,
                                                  const at::Tensor& delta,
                                                  const ParameterPtr& weight,
                                                  const ParameterPtr& bias,
                                                  double eps) {
  if (!has_kernels(x)) {
    return device::add_layer_norm(x, delta, weight, bias, eps);
  }
  const auto step = step_of(x, weight, bias, eps);
  at::Tensor y = step->forward(delta.detach().contiguous());
  at::Tensor sum = step->x.detach();  // the step's own alias: no cycle
  if (recording() &&
      (x.requires_grad() || delta.requires_grad() || weight->trainable || is_trainable(bias))) {
    step->with_sum = true;
    connect(step, {x, delta}, {sum, y});
  }
  return {sum, y};
}

}  // namespace kamerton::tensor
