// SPDX-License-Identifier: Apache-2.0
// Backward steps written by hand: what they save is chosen, and version counters of saved tensors
// are not consulted (parameters are released and refilled under ZeRO).
#pragma once

#include <memory>
#include <string>
#include <utility>

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/variable.h>

#include "kamerton/tensor/param_unit.h"

namespace kamerton::tensor {

using torch::autograd::variable_list;

/// First order only. Subclasses read grads[i] (undefined when output i was not used) and return one
/// gradient an input.
class BackwardStep : public torch::autograd::Node {
 public:
  virtual variable_list backward(variable_list grads) = 0;

 private:
  variable_list apply(variable_list&& grads) override { return backward(std::move(grads)); }
};

template <class Step>
std::shared_ptr<Step> make_step() {
  return std::shared_ptr<Step>(new Step(), torch::autograd::deleteNode);
}

/// Connects the step: gradients of `outputs` go into it, its results go on to `inputs`.
template <class Step>
void connect(const std::shared_ptr<Step>& step,
             const std::vector<at::Tensor>& inputs,
             std::vector<at::Tensor> outputs) {
  torch::autograd::edge_list edges;
  edges.reserve(inputs.size());
  for (const at::Tensor& input : inputs) {
    edges.push_back(torch::autograd::impl::gradient_edge(input));
  }
  step->set_next_edges(std::move(edges));
  for (at::Tensor& output : outputs) {
    torch::autograd::set_history(output, step);
  }
}

inline bool recording() {
  return at::GradMode::is_enabled();
}
inline bool is_trainable(const ParameterPtr& parameter) {
  return parameter != nullptr && parameter->trainable;
}

}  // namespace kamerton::tensor
