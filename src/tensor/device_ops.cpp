// SPDX-License-Identifier: Apache-2.0
#include "device_ops.h"

#include <ATen/ATen.h>

#include "node.h"

namespace kamerton::tensor::device {
namespace {

/// With xhat = x rstd and g = dy w: dx = rstd (g - xhat mean(g xhat)), dw = sum of dy xhat.
struct NormStep final : BackwardStep {
  at::Tensor x;     // or the sum
  at::Tensor rstd;  // fp32, one a row
  ParameterPtr weight;
  bool plus_one = false;
  bool fused = false;
  bool with_sum = false;

  /// grads: (dy) or (dsum, dy).
  variable_list backward(variable_list grads) override {
    const at::Tensor& dy = grads.back();
    if (!dy.defined()) {
      return with_sum ? variable_list{grads[0], grads[0]} : variable_list{at::Tensor()};
    }
    at::Tensor dx = fused ? run_fused(dy.contiguous()) : run_plain(dy);
    if (with_sum && grads[0].defined()) {
      dx = dx.add_(grads[0]);
    }
    dx = dx.to(x.scalar_type());
    return with_sum ? variable_list{dx, dx} : variable_list{dx};
  }
  void release_variables() override {
    x.reset();
    rstd.reset();
  }

  at::Tensor run_fused(const at::Tensor& dy) const {
    const auto [dx, dweight] = at::_fused_rms_norm_backward(
        dy, x, {x.size(-1)}, rstd, weight->value.detach(), {true, weight->trainable});
    if (weight->trainable) {
      weight->accumulator().add_(dweight);
    }
    return dx;
  }

  /// fp32
  at::Tensor run_plain(const at::Tensor& dy) const {
    const at::Tensor wide_dy = dy.to(at::kFloat);
    const at::Tensor xhat = x.to(at::kFloat).mul(rstd);
    if (weight->trainable) {
      weight->accumulator().add_((wide_dy * xhat).reshape({-1, x.size(-1)}).sum(0));
    }
    const at::Tensor g = wide_dy * factor(weight, plus_one);
    return (g - xhat * (g * xhat).mean(-1, true)).mul_(rstd);
  }

  static at::Tensor factor(const ParameterPtr& weight, bool plus_one) {
    const at::Tensor w = weight->value.detach().to(at::kFloat);
    return plus_one ? w + 1.0 : w;
  }
};

/// CUDA has both directions of the plain norm as one kernel each.
bool has_fused_norm(const at::Tensor& x, const ParameterPtr& weight, bool plus_one) {
  return x.is_cuda() && !plus_one && x.scalar_type() == weight->value.scalar_type();
}

/// The norm of rows (detached), and the step that goes back through it.
std::pair<at::Tensor, std::shared_ptr<NormStep>> norm(const at::Tensor& rows,
                                                      const ParameterPtr& weight,
                                                      double eps,
                                                      bool plus_one) {
  const at::NoGradGuard no_grad;
  auto step = make_step<NormStep>();
  step->x = rows;
  step->weight = weight;
  step->plus_one = plus_one;
  step->fused = has_fused_norm(rows, weight, plus_one);
  at::Tensor y;
  if (step->fused) {
    std::tie(y, step->rstd) =
        at::_fused_rms_norm(rows, {rows.size(-1)}, weight->value.detach(), eps);
  } else {
    const at::Tensor wide = rows.to(at::kFloat);
    step->rstd = (wide.square().mean(-1, true) + eps).rsqrt();
    y = (wide * step->rstd).mul_(NormStep::factor(weight, plus_one)).to(rows.scalar_type());
  }
  return {y, step};
}

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const ParameterPtr& weight, double eps, bool plus_one) {
  const auto [y, step] = norm(x.detach().contiguous(), weight, eps, plus_one);
  if (recording() && (x.requires_grad() || weight->trainable)) {
    connect(step, {x}, {y});
  }
  return y;
}

std::tuple<at::Tensor, at::Tensor> add_rms_norm(const at::Tensor& x,
                                                const at::Tensor& delta,
                                                const ParameterPtr& weight,
                                                double eps,
                                                bool plus_one) {
  at::Tensor sum = at::add(x.detach(), delta.detach()).contiguous();
  // The step keeps an alias: its own output would be a cycle.
  const auto [y, step] = norm(sum.detach(), weight, eps, plus_one);
  if (recording() && (x.requires_grad() || delta.requires_grad() || weight->trainable)) {
    step->with_sum = true;
    connect(step, {x, delta}, {sum, y});
  }
  return {sum, y};
}

void add_rows(at::Tensor& target, const at::Tensor& tokens, const at::Tensor& dy) {
  // Unlike index_add_, this one sorts the indices on CUDA: no race between equal tokens.
  at::index_put_(
      target, c10::List<std::optional<at::Tensor>>({tokens}), dy.to(target.scalar_type()), true);
}

void loss_chunk(at::Tensor& logits, const LossRows& rows, const TokenLossOptions& options) {
  const at::NoGradGuard no_grad;
  const double cap = options.soft_cap;
  at::Tensor z = logits.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
  if (options.logit_scale != 1.0) {
    z.mul_(options.logit_scale);
  }
  if (cap > 0) {
    z.div_(cap).tanh_().mul_(cap);
  }
  if (rows.correct.defined()) {
    rows.correct.copy_(z.argmax(1).eq(rows.targets));
  }
  at::Tensor p = at::log_softmax(z, 1);
  const at::Tensor index = rows.targets.unsqueeze(1);
  rows.nll.copy_(p.gather(1, index).squeeze(1).neg_());
  if (!rows.coefficients.defined()) {
    return;
  }
  p.exp_();
  p.scatter_add_(1, index, at::full({p.size(0), 1}, -1.0, p.options()));
  p.mul_((rows.coefficients * options.logit_scale).unsqueeze(1));
  if (cap > 0) {
    p.mul_(z.div_(cap).square_().neg_().add_(1.0));
  }
  logits.copy_(p);
}

}  // namespace kamerton::tensor::device
