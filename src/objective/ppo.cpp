// SPDX-License-Identifier: Apache-2.0
#include <utility>

#include <ATen/ATen.h>

#include "kamerton/objective/policy.h"

#include "documents.h"
#include "policy_names.h"

namespace kamerton::objective {
namespace {

/// The rows of document d that have a target, in order.
std::vector<size_t> answer_rows(const data::Batch& batch, size_t d) {
  std::vector<size_t> rows;
  for (int64_t n = batch.document_offsets[d]; n < batch.document_offsets[d + 1]; ++n) {
    if (batch.targets[static_cast<size_t>(n)] != data::kNoTarget) {
      rows.push_back(static_cast<size_t>(n));
    }
  }
  return rows;
}

std::vector<double> pick(const std::vector<float>& values, const std::vector<size_t>& rows) {
  std::vector<double> picked;
  for (const size_t row : rows) {
    picked.push_back(values[row]);
  }
  return picked;
}

void put(std::vector<float>& into,
         const std::vector<size_t>& rows,
         const std::vector<double>& values) {
  for (size_t i = 0; i < rows.size(); ++i) {
    into[rows[i]] = static_cast<float>(values[i]);
  }
}

}  // namespace

void Ppo::look_back(model::Decoder& model, data::Batch& batch) const {
  const Tokens tokens = to_tokens(batch, model.device());
  const at::Tensor hidden_ND = model.forward(tokens.rows);
  batch.attached[kOldLogProbs] =
      to_vector(model.log_probs(hidden_ND, tokens.targets_N, config_.rollout.temperature));
  batch.attached[kOldValues] = to_vector(model.values(hidden_ND));
  if (reference_ != nullptr) {
    batch.attached[kReferenceLogProbs] = reference_log_probs(batch);
  }
}

void Ppo::judge(model::Decoder& model, Generation& generation) {
  std::vector<std::vector<double>> advantages;
  size_t answer = 0;
  for (data::Batch& batch : generation.batches) {
    look_back(model, batch);
    std::vector<float>& returns = batch.attached[kReturns];
    returns.resize(batch.tokens.size());
    for (size_t d = 0; d < document_count(batch); ++d, ++answer) {
      const std::vector<size_t> rows = answer_rows(batch, d);
      std::vector<double> rewards(rows.size(), 0.0);
      if (reference_ != nullptr) {
        const at::Tensor kl =
            kl_estimate(config_.policy.kl_estimator,
                        to_tensor(pick(batch.attached[kOldLogProbs], rows)),
                        to_tensor(pick(batch.attached[kReferenceLogProbs], rows)));
        for (size_t t = 0; t < rows.size(); ++t) {
          rewards[t] = -config_.policy.kl_coef * kl[static_cast<int64_t>(t)].item<double>();
        }
      }
      if (!rewards.empty()) {
        rewards.back() += generation.rewards[answer];
      }
      Estimate estimate = estimate_advantages(rewards,
                                              pick(batch.attached[kOldValues], rows),
                                              config_.policy.gamma,
                                              config_.policy.lambda);
      put(returns, rows, estimate.returns);
      advantages.push_back(std::move(estimate.advantages));
    }
  }
  whiten(advantages, world_);
  answer = 0;
  for (data::Batch& batch : generation.batches) {
    std::vector<float>& rows = batch.attached[kAdvantages];
    rows.resize(batch.tokens.size());
    for (size_t d = 0; d < document_count(batch); ++d, ++answer) {
      put(rows, answer_rows(batch, d), advantages[answer]);
    }
  }
}

at::Tensor Ppo::loss(model::Decoder& model, const data::Batch& batch, const Shares& shares) {
  const Tokens tokens = to_tokens(batch, model.device());
  const at::Tensor hidden_ND = model.forward(tokens.rows);
  const at::Tensor value_N = model.values(hidden_ND);
  const PolicyTokens policy =
      tokens_of(batch, model.log_probs(hidden_ND, tokens.targets_N, config_.rollout.temperature));
  const at::Device device = model.device();
  const at::Tensor value_M = value_N.index_select(0, target_rows(batch).to(device));
  const at::Tensor value_losses_M = ppo_value_losses(config_.policy,
                                                     value_M,
                                                     attached(batch, kOldValues, device),
                                                     attached(batch, kReturns, device));
  note(policy);
  const auto count = static_cast<double>(value_M.numel());
  value_loss_.sum += value_losses_M.sum().item<double>();
  value_loss_.count += count;
  value_.sum += value_M.sum().item<double>();
  value_.count += count;
  return shares.target *
         (ppo_policy_losses(config_.policy, policy) + config_.policy.value_coef * value_losses_M)
             .sum();
}

std::vector<MetricSum> Ppo::take_own_metrics() {
  return {std::exchange(value_loss_, {}), std::exchange(value_, {})};
}

}  // namespace kamerton::objective
