// SPDX-License-Identifier: Apache-2.0
#include "kamerton/objective/objective.h"

#include <cstring>

#include <ATen/ATen.h>

namespace kamerton::objective {
namespace {

at::Tensor to_tensor(const std::vector<int64_t>& values) {
  at::Tensor tensor = at::empty({static_cast<int64_t>(values.size())}, at::kLong);
  if (!values.empty()) {
    std::memcpy(tensor.mutable_data_ptr(), values.data(), values.size() * sizeof(int64_t));
  }
  return tensor;
}

}  // namespace

Tokens to_tokens(const data::Batch& batch, at::Device device) {
  return {.rows = {to_tensor(batch.tokens).to(device),
                   to_tensor(batch.positions).to(device),
                   batch.document_offsets},
          .targets_N = to_tensor(batch.targets).to(device)};
}

at::Tensor TokenLoss::loss(model::Decoder& model, const data::Batch& batch, double scale) {
  const Tokens tokens = to_tokens(batch, model.device());
  const at::Tensor hidden_ND = model.forward(tokens.rows);
  tensor::TokenLossOptions options;
  options.scale = scale;
  return model.loss(hidden_ND, tokens.targets_N, options).loss;
}

}  // namespace kamerton::objective
