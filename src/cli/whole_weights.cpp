// SPDX-License-Identifier: Apache-2.0
#include "whole_weights.h"

#include <ATen/ATen.h>

namespace kamerton::cli {

WholeWeights::WholeWeights(model::Decoder& decoder, optim::ShardedParameters& parameters)
    : decoder_(decoder), parameters_(parameters) {
  const at::NoGradGuard no_grad;
  for (const tensor::ParameterPtr& parameter : decoder_.parameters()) {
    at::Tensor whole = parameters_.fetch(*parameter).to(decoder_.dtype());
    placed_.emplace_back(parameter, std::exchange(parameter->value, whole));
  }
  decoder_.set_hooks(nullptr);
}

WholeWeights::~WholeWeights() {
  for (auto& [parameter, value] : placed_) {
    parameter->value = std::move(value);
  }
  decoder_.set_hooks(&parameters_);
}

}  // namespace kamerton::cli
