// SPDX-License-Identifier: Apache-2.0
#include "kamerton/objective/judged.h"

#include <algorithm>
#include <utility>

#include <ATen/ATen.h>

#include "kamerton/core/error.h"

#include "documents.h"

namespace kamerton::objective {
namespace {

/// fp32 [D] on the CPU: the log-probabilities of the documents' answers by the policy, no gradient.
at::Tensor policy_sums(model::Decoder& model, const data::Batch& batch) {
  const at::NoGradGuard no_grad;
  const Tokens tokens = to_tokens(batch, model.device());
  return sum_documents(model.log_probs(model.forward(tokens.rows), tokens.targets_N), batch)
      .to(at::kCPU);
}

at::Tensor reference_sums(Reference* reference,
                          const ReferenceStore* store,
                          const data::Batch& batch,
                          int answer) {
  if (store == nullptr) {
    return sum_documents(reference->log_probs(to_tokens(batch, reference->device())), batch);
  }
  std::vector<float> sums;
  for (const int64_t index : batch.source_indices) {
    sums.push_back(store->log_prob(index, answer));
  }
  return to_tensor(sums);
}

}  // namespace

at::Tensor judged_losses(const ObjectiveConfig& config, const JudgedLogProbs& answers, double kl) {
  const at::Tensor ratio_D = answers.policy_D - answers.reference_D;
  const bool apo = !config.loss.empty() && config.loss.front() == "apo_zero_unpaired";
  const at::Tensor margin_D = config.beta * (apo ? ratio_D : ratio_D - kl);
  return config.desirable_weight * answers.good_D * (1 - at::sigmoid(margin_D)) +
         config.undesirable_weight * (1 - answers.good_D) * at::sigmoid(margin_D);
}

Kto::Kto(ObjectiveConfig config,
         Reference* reference,
         const StoredReferences* stored,
         const comm::Group& world)
    : config_(std::move(config)), reference_(reference), stored_(stored), world_(world) {
  validate(config_);
  if (reference_ == nullptr && stored_ == nullptr) {
    throw core::Error(core::ErrorKind::Internal,
                      {.where = "objective.judged", .what = "no reference model was given"});
  }
}

double Kto::divergence(model::Decoder& model,
                       const std::vector<data::Batch>& batches,
                       const ReferenceStore* store) {
  double sum = 0;
  int64_t count = 0;
  for (const data::Batch& batch : batches) {
    const data::Batch mismatched = take_documents(batch, 1, 2);
    const at::Tensor real_D = (target_counts(mismatched) > 0).to(at::kDouble);
    const at::Tensor ratio_D = policy_sums(model, mismatched) -
                               reference_sums(reference_, store, mismatched, 1).to(at::kCPU);
    sum += (ratio_D.to(at::kDouble) * real_D).sum().item<double>();
    count += real_D.sum().item<int64_t>();
  }
  sum = world_.sum(sum);
  return std::max(0.0, sum / static_cast<double>(std::max<int64_t>(world_.sum(count), 1)));
}

std::vector<data::Batch> Kto::prepare(model::Decoder& model,
                                      std::vector<data::Batch> batches,
                                      const Phase& phase) {
  const ReferenceStore* store = stored_ == nullptr ? nullptr : stored_->of(phase);
  if (config_.loss.empty() || config_.loss.front() == "kto") {
    kl_ = divergence(model, batches, store);
  }
  kl_sum_ = {kl_, 1};
  for (data::Batch& batch : batches) {
    batch = take_documents(batch, 0, 2);
    if (store != nullptr) {
      std::vector<float>& sums = batch.attached[kReferenceSums];
      for (const int64_t index : batch.source_indices) {
        sums.push_back(store->log_prob(index, 0));
      }
    }
  }
  return batches;
}

Counts Kto::counts(const data::Batch& batch) const {
  Counts counts{.targets = batch.target_count};
  for (size_t d = 0; d < document_count(batch); ++d) {
    counts.pairs += targets_of(batch, d) > 0 ? 1 : 0;
  }
  return counts;
}

at::Tensor Kto::loss(model::Decoder& model, const data::Batch& batch, const Shares& shares) {
  const at::Device device = model.device();
  const Tokens tokens = to_tokens(batch, device);
  JudgedLogProbs answers;
  const auto stored = batch.attached.find(kReferenceSums);
  answers.reference_D = stored != batch.attached.end()
                            ? to_tensor(stored->second).to(device)
                            : sum_documents(reference_->log_probs(tokens), batch).to(device);
  answers.good_D = to_tensor(batch.marks).to(device);
  answers.policy_D =
      sum_documents(model.log_probs(model.forward(tokens.rows), tokens.targets_N), batch);
  const at::Tensor real_D = (target_counts(batch) > 0).to(device, at::kFloat);
  const at::Tensor reward_D = config_.beta * (answers.policy_D - answers.reference_D).detach();
  const auto add = [](MetricSum& metric, const at::Tensor& values_D, const at::Tensor& which_D) {
    metric.sum += (values_D * which_D).sum().item<double>();
    metric.count += which_D.sum().item<double>();
  };
  add(chosen_reward_, reward_D, real_D * answers.good_D);
  add(rejected_reward_, reward_D, real_D * (1 - answers.good_D));
  add(chosen_log_prob_, answers.policy_D.detach(), real_D * answers.good_D);
  add(rejected_log_prob_, answers.policy_D.detach(), real_D * (1 - answers.good_D));
  return (judged_losses(config_, answers, kl_) * real_D).sum() * shares.pair;
}

std::vector<std::string> Kto::metric_names() const {
  return {"rewards/chosen",
          "rewards/rejected",
          "rewards/margins",
          "logps/chosen",
          "logps/rejected",
          "kl"};
}

std::vector<MetricSum> Kto::take_metrics() {
  // The margin is a difference of means over all ranks: each rank gives the whole of it.
  const auto mean = [&](const MetricSum& metric) {
    return world_.sum(metric.sum) / std::max(world_.sum(metric.count), 1.0);
  };
  const MetricSum margin{mean(chosen_reward_) - mean(rejected_reward_), 1};
  const std::vector<MetricSum> sums = {
      chosen_reward_, rejected_reward_, margin, chosen_log_prob_, rejected_log_prob_, kl_sum_};
  chosen_reward_ = rejected_reward_ = chosen_log_prob_ = rejected_log_prob_ = kl_sum_ = {};
  return sums;
}

}  // namespace kamerton::objective
