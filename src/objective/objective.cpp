// SPDX-License-Identifier: Apache-2.0
#include "kamerton/objective/objective.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

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

Counts& Counts::operator+=(const Counts& other) {
  targets += other.targets;
  pairs += other.pairs;
  likelihood += other.likelihood;
  return *this;
}

Shares Shares::of(const Counts& step) {
  const auto share = [](int64_t count) {
    return 1.0 / static_cast<double>(std::max<int64_t>(count, 1));
  };
  return {share(step.targets), share(step.pairs), share(step.likelihood)};
}

core::Json Objective::state() const {
  return core::Json::object();
}

at::Tensor TokenLoss::loss(model::Decoder& model, const data::Batch& batch, const Shares& shares) {
  const Tokens tokens = to_tokens(batch, model.device());
  // A micro-batch counts by its share of the step's targets, as the loss of its tokens does.
  const double router_share =
      model.router_coefficient() * shares.target * static_cast<double>(batch.target_count);
  model.set_router_strength(router_share);
  trains_routers_ = trains_routers_ || model.router_coefficient() != 0.0;
  const at::Tensor hidden_ND = model.forward(tokens.rows);
  tensor::TokenLossOptions options;
  options.scale = shares.target;
  at::Tensor loss = model.loss(hidden_ND, tokens.targets_N, options).loss;
  if (const at::Tensor further = beside(model, batch, hidden_ND, shares); further.defined()) {
    loss = loss + further;
  }
  if (router_share == 0.0) {
    return loss;
  }
  const auto count = static_cast<double>(batch.target_count);
  routers_.sum += model.router_loss() * count;
  routers_.count += count;
  return loss + router_share * model.router_loss();
}

std::vector<std::string> TokenLoss::metric_names() const {
  return trains_routers_ ? std::vector<std::string>{"router_loss"} : std::vector<std::string>{};
}

std::vector<MetricSum> TokenLoss::take_metrics() {
  const MetricSum sums = std::exchange(routers_, MetricSum{});
  return trains_routers_ ? std::vector<MetricSum>{sums} : std::vector<MetricSum>{};
}

}  // namespace kamerton::objective
