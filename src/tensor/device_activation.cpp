// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>

#include "device_ops.h"
#include "node.h"

namespace kamerton::tensor::device {
namespace {

at::Tensor value(Activation activation, const at::Tensor& x) {
  switch (activation) {
    case Activation::Silu:
      return at::silu(x);
    case Activation::GeluTanh:
      return at::gelu(x, "tanh");
    case Activation::Gelu:
      return at::gelu(x);
  }
  return x;
}

/// dy times the slope at x.
at::Tensor gradient(Activation activation, const at::Tensor& dy, const at::Tensor& x) {
  switch (activation) {
    case Activation::Silu:
      return at::silu_backward(dy, x);
    case Activation::GeluTanh:
      return at::gelu_backward(dy, x, "tanh");
    case Activation::Gelu:
      return at::gelu_backward(dy, x);
  }
  return dy;
}

struct GatedStep final : BackwardStep {
  Activation activation{};
  at::Tensor gate;
  at::Tensor up;

  variable_list backward(variable_list grads) override {
    if (!grads[0].defined()) {
      return {at::Tensor(), at::Tensor()};
    }
    return {gradient(activation, grads[0] * up, gate), value(activation, gate).mul_(grads[0])};
  }
  void release_variables() override {
    gate.reset();
    up.reset();
  }
};

}  // namespace

at::Tensor gated(Activation activation, const at::Tensor& gate, const at::Tensor& up) {
  const at::Tensor g = gate.detach();
  const at::Tensor u = up.detach();
  at::Tensor out = value(activation, g).mul_(u);
  if (recording() && (gate.requires_grad() || up.requires_grad())) {
    auto step = make_step<GatedStep>();
    step->activation = activation;
    step->gate = g;
    step->up = u;
    connect(step, {gate, up}, {out});
  }
  return out;
}

at::Tensor activate(Activation activation, const at::Tensor& x) {
  return value(activation, x);
}

}  // namespace kamerton::tensor::device
