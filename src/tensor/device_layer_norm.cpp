// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>

#include "device_ops.h"
#include "node.h"

namespace kamerton::tensor::device {
namespace {

/// With xhat = (x - mean) rstd and g = dy w: dx = rstd (g - mean(g) - xhat mean(g xhat)).
struct LayerNormStep final : BackwardStep {
  at::Tensor x;  // or the sum
  at::Tensor mean;
  at::Tensor rstd;  // fp32, as the mean; fp64 of fp64
  ParameterPtr weight;
  ParameterPtr bias;
  bool with_sum = false;

  /// grads: (dy) or (dsum, dy).
  variable_list backward(variable_list grads) override {
    const at::Tensor& dy = grads.back();
    if (!dy.defined()) {
      return with_sum ? variable_list{grads[0], grads[0]} : variable_list{at::Tensor()};
    }
    const at::Tensor wide_dy = dy.to(rstd.scalar_type());
    const at::Tensor xhat = (x.to(rstd.scalar_type()) - mean).mul_(rstd);
    if (weight->trainable) {
      weight->accumulator().add_((wide_dy * xhat).reshape({-1, x.size(-1)}).sum(0));
    }
    if (is_trainable(bias)) {
      bias->accumulator().add_(wide_dy.reshape({-1, x.size(-1)}).sum(0));
    }
    const at::Tensor g = wide_dy * weight->value.detach();
    at::Tensor dx = (g - g.mean(-1, true) - xhat * (g * xhat).mean(-1, true)).mul_(rstd);
    if (with_sum && grads[0].defined()) {
      dx = dx.add_(grads[0]);
    }
    dx = dx.to(x.scalar_type());
    return with_sum ? variable_list{dx, dx} : variable_list{dx};
  }
  void release_variables() override {
    x.reset();
    mean.reset();
    rstd.reset();
  }
};

/// The norm of rows (detached), and the step that goes back through it.
std::pair<at::Tensor, std::shared_ptr<LayerNormStep>> norm(const at::Tensor& rows,
                                                           const ParameterPtr& weight,
                                                           const ParameterPtr& bias,
                                                           double eps) {
  const at::NoGradGuard no_grad;
  auto step = make_step<LayerNormStep>();
  step->x = rows;
  step->weight = weight;
  step->bias = bias;
  const bool twice = rows.scalar_type() == at::kDouble;
  const at::Tensor wide = twice ? rows : rows.to(at::kFloat);
  step->mean = wide.mean(-1, true);
  const at::Tensor centred = wide - step->mean;
  step->rstd = (centred.square().mean(-1, true) + eps).rsqrt();
  at::Tensor y = centred * step->rstd * weight->value.detach();
  if (bias != nullptr) {
    y = y + bias->value.detach();
  }
  return {y.to(rows.scalar_type()), step};
}

}  // namespace

at::Tensor layer_norm(const at::Tensor& x,
                      const ParameterPtr& weight,
                      const ParameterPtr& bias,
                      double eps) {
  const auto [y, step] = norm(x.detach().contiguous(), weight, bias, eps);
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
  at::Tensor sum = at::add(x.detach(), delta.detach()).contiguous();
  // The step keeps an alias: its own output would be a cycle.
  const auto [y, step] = norm(sum.detach(), weight, bias, eps);
  if (recording() &&
      (x.requires_grad() || delta.requires_grad() || weight->trainable || is_trainable(bias))) {
    step->with_sum = true;
    connect(step, {x, delta}, {sum, y});
  }
  return {sum, y};
}

}  // namespace kamerton::tensor::device
