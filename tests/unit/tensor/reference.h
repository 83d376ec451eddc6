// SPDX-License-Identifier: Apache-2.0
// Parameters and random tensors for kernel tests, and comparison with autograd in double precision.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "kamerton/core/random.h"
#include "kamerton/tensor/param_unit.h"

namespace kamerton::test {

inline at::Tensor random_tensor(std::vector<int64_t> shape, uint64_t seed, double scale = 1.0) {
  const core::RandomStream stream(seed, "test");
  at::Tensor t = at::empty(shape, at::kFloat);
  float* data = t.mutable_data_ptr<float>();
  for (int64_t i = 0; i < t.numel(); ++i) {
    data[i] = static_cast<float>(scale * stream.normal(static_cast<uint64_t>(i)));
  }
  return t;
}

inline tensor::ParameterPtr parameter_of(const at::Tensor& value, bool trainable = true) {
  auto parameter = std::make_shared<tensor::Parameter>();
  parameter->name = "p";
  parameter->shape = value.sizes().vec();
  parameter->trainable = trainable;
  parameter->value = value.detach().clone().requires_grad_(trainable);
  return parameter;
}

inline double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  return (a.detach().to(at::kDouble) - b.detach().to(at::kDouble)).abs().max().item<double>();
}

/// A leaf in double precision with the same values.
inline at::Tensor double_leaf(const at::Tensor& t) {
  return t.detach().to(at::kDouble).clone().requires_grad_(true);
}

inline void backward(const at::Tensor& output, const at::Tensor& gradient) {
  torch::autograd::backward({output}, {gradient.to(output.scalar_type())});
}

}  // namespace kamerton::test
