// SPDX-License-Identifier: Apache-2.0
#include "kamerton/tensor/param_unit.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include "node.h"

namespace kamerton::tensor {
namespace {

bool any_trainable(const ParamUnit& unit) {
  for (const ParameterPtr& parameter : unit.parameters) {
    if (parameter->trainable) {
      return true;
    }
  }
  return false;
}

/// Stands behind a unit's output: the first to run in its backward.
struct OpenUnit final : BackwardStep {
  UnitHooks* hooks = nullptr;
  int unit = 0;

  variable_list backward(variable_list grads) override {
    hooks->before_backward(unit);
    return grads;
  }
};

/// Stands before a unit's input: the last to run, for every path of the unit ends here.
struct CloseUnit final : BackwardStep {
  UnitHooks* hooks = nullptr;
  int unit = 0;

  variable_list backward(variable_list grads) override {
    hooks->after_backward(unit);
    return grads;
  }
};

/// Keeps the input only; computes the unit again and goes backward through it at once.
struct RecomputeUnit final : BackwardStep {
  UnitHooks* hooks = nullptr;
  int unit = 0;
  at::Tensor input;
  std::function<at::Tensor(const at::Tensor&)> body;

  variable_list backward(variable_list grads) override {
    if (hooks != nullptr) {
      hooks->before_backward(unit);
    }
    at::Tensor result;
    {
      const at::AutoGradMode grad_mode(true);
      at::Tensor again = input.detach().requires_grad_(true);
      const at::Tensor output = body(again);
      torch::autograd::backward({output}, {grads[0]});
      result = again.grad();
    }
    if (hooks != nullptr) {
      hooks->after_backward(unit);
    }
    return {result};
  }

  void release_variables() override {
    input.reset();
    body = nullptr;
  }
};

at::Tensor run_without_backward(UnitHooks* hooks,
                                const ParamUnit& unit,
                                const at::Tensor& input,
                                const std::function<at::Tensor(const at::Tensor&)>& body) {
  const at::NoGradGuard no_grad;
  if (hooks != nullptr) {
    hooks->before_forward(unit.index);
  }
  at::Tensor output = body(input);
  if (hooks != nullptr) {
    hooks->after_forward(unit.index);
  }
  return output;
}

at::Tensor run_recomputed(UnitHooks* hooks,
                          const ParamUnit& unit,
                          const at::Tensor& input,
                          const std::function<at::Tensor(const at::Tensor&)>& body) {
  // detach: an output that is the input itself must not get this step as its history.
  at::Tensor output = run_without_backward(hooks, unit, input, body).detach();
  auto step = make_step<RecomputeUnit>();
  step->hooks = hooks;
  step->unit = unit.index;
  step->input = input.detach();
  step->body = body;
  connect(step, {input}, {output});
  return output;
}

template <class Bracket>
at::Tensor through(UnitHooks* hooks, const ParamUnit& unit, const at::Tensor& tensor) {
  at::Tensor alias = tensor.detach();
  auto step = make_step<Bracket>();
  step->hooks = hooks;
  step->unit = unit.index;
  connect(step, {tensor}, {alias});
  return alias;
}

}  // namespace

int64_t Parameter::numel() const {
  int64_t product = 1;
  for (const int64_t size : shape) {
    product *= size;
  }
  return product;
}

at::Tensor Parameter::accumulator() {
  if (gradient.defined()) {
    return gradient;
  }
  at::Tensor& grad = value.mutable_grad();
  if (!grad.defined()) {
    grad = at::zeros(shape, value.options().dtype(at::kFloat).requires_grad(false));
  }
  return grad;
}

int64_t ParamUnit::numel(bool trainable) const {
  int64_t total = 0;
  for (const ParameterPtr& parameter : parameters) {
    const bool counts = parameter->trainable == trainable && !parameter->packed;
    total += counts ? parameter->numel() : 0;
  }
  return total;
}

at::Tensor run_unit(UnitHooks* hooks,
                    const ParamUnit& unit,
                    const at::Tensor& input,
                    bool checkpoint,
                    const std::function<at::Tensor(const at::Tensor&)>& body) {
  if (!recording() || (!input.requires_grad() && !any_trainable(unit))) {
    return run_without_backward(hooks, unit, input, body);
  }
  if (checkpoint) {
    return run_recomputed(hooks, unit, input, body);
  }
  if (hooks == nullptr) {
    return body(input);
  }
  const at::Tensor inside = through<CloseUnit>(hooks, unit, input);
  hooks->before_forward(unit.index);
  const at::Tensor output = body(inside);
  hooks->after_forward(unit.index);
  return through<OpenUnit>(hooks, unit, output);
}

void run_unit_fused(UnitHooks* hooks, const ParamUnit& unit, const std::function<void()>& body) {
  const bool backward = recording();
  if (hooks != nullptr) {
    backward ? hooks->before_backward(unit.index) : hooks->before_forward(unit.index);
  }
  body();
  if (hooks != nullptr) {
    backward ? hooks->after_backward(unit.index) : hooks->after_forward(unit.index);
  }
}

void place_whole(const std::vector<ParamUnit>& units, at::ScalarType dtype, at::Device device) {
  for (const ParamUnit& unit : units) {
    for (const ParameterPtr& parameter : unit.parameters) {
      const at::ScalarType type = parameter->packed ? at::kByte : dtype;
      parameter->value = at::empty(parameter->shape, at::TensorOptions(device).dtype(type))
                             .requires_grad_(parameter->trainable);
    }
  }
}

}  // namespace kamerton::tensor
