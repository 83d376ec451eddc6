// SPDX-License-Identifier: Apache-2.0
#include "kamerton/objective/policy.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"

#include "documents.h"
#include "policy_names.h"

namespace kamerton::objective {

PolicyLearning::PolicyLearning(const ObjectiveConfig& config,
                               std::unique_ptr<Rollout> rollout,
                               Reference* reference,
                               const comm::Group& world)
    : config_(config), rollout_(std::move(rollout)), reference_(reference), world_(world) {
  validate(config_);
  if (needs_reference(config_) && reference_ == nullptr) {
    throw core::Error(core::ErrorKind::Internal,
                      {.where = "objective.policy", .what = "no reference model was given"});
  }
}

std::vector<data::Batch> PolicyLearning::prepare(model::Decoder& model,
                                                 std::vector<data::Batch> batches,
                                                 const Phase& phase) {
  const at::NoGradGuard no_grad;
  held_out_ = phase.held_out;
  Generation generation = rollout_->run(model, batches, phase);
  if (!held_out_ &&
      generation.batches.size() % static_cast<size_t>(config_.rollout.mini_batches) != 0) {
    throw core::Error(
        core::ErrorKind::Config,
        {.where = "objective.policy",
         .what = "the micro-batches of a rank do not divide into rollout.mini_batches",
         .got = fmt::format("{} micro-batches", generation.batches.size()),
         .allowed = fmt::format("a multiple of {}", config_.rollout.mini_batches),
         .hint = "data.batch_rows x rollout.samples / ranks / data.micro_batch_rows"});
  }
  if (!held_out_) {
    answers_ = 0;
    for (const double counted : generation.counted) {
      answers_ += counted;
    }
  }
  judge(model, generation);
  return std::move(generation.batches);
}

int64_t PolicyLearning::updates() const {
  return config_.rollout.epochs * config_.rollout.mini_batches;
}

bool PolicyLearning::belongs(size_t batch, int64_t update) const {
  const int64_t parts = config_.rollout.mini_batches;
  return static_cast<int64_t>(batch) % parts == update % parts;
}

Counts PolicyLearning::counts(const data::Batch& batch) const {
  const auto fillers = std::count(batch.sample_ids.begin(), batch.sample_ids.end(), data::kFiller);
  return {.targets = batch.target_count,
          .pairs = static_cast<int64_t>(batch.sample_ids.size()) - fillers};
}

std::vector<float> PolicyLearning::old_log_probs(model::Decoder& model,
                                                 const data::Batch& batch) const {
  const Tokens tokens = to_tokens(batch, model.device());
  return to_vector(
      model.log_probs(model.forward(tokens.rows), tokens.targets_N, config_.rollout.temperature));
}

std::vector<float> PolicyLearning::reference_log_probs(const data::Batch& batch) const {
  return to_vector(
      reference_->log_probs(to_tokens(batch, reference_->device()), config_.rollout.temperature));
}

at::Tensor PolicyLearning::attached(const data::Batch& batch,
                                    const char* name,
                                    at::Device device) const {
  const auto found = batch.attached.find(name);
  return found == batch.attached.end()
             ? at::Tensor()
             : to_tensor(found->second).index_select(0, target_rows(batch)).to(device);
}

PolicyTokens PolicyLearning::tokens_of(const data::Batch& batch, const at::Tensor& log_p_N) const {
  const at::Device device = log_p_N.device();
  const at::Tensor rows_M = target_rows(batch);
  return {.log_p_M = log_p_N.index_select(0, rows_M.to(device)),
          .old_log_p_M = attached(batch, kOldLogProbs, device),
          .ref_log_p_M = attached(batch, kReferenceLogProbs, device),
          .advantage_M = attached(batch, kAdvantages, device),
          .answer_M = document_of_rows(batch).index_select(0, rows_M).to(device),
          .answers = static_cast<int64_t>(document_count(batch))};
}

void PolicyLearning::note(const PolicyTokens& tokens) {
  const auto count = static_cast<double>(tokens.log_p_M.numel());
  clipped_.sum += clipped_share(config_, tokens) * count;
  clipped_.count += count;
  if (tokens.ref_log_p_M.defined()) {
    const at::Tensor kl_M =
        kl_estimate(config_.policy.kl_estimator, tokens.log_p_M.detach(), tokens.ref_log_p_M);
    kl_.sum += kl_M.sum().item<double>();
    kl_.count += count;
  }
}

std::vector<std::string> PolicyLearning::metric_names() const {
  std::vector<std::string> names = rollout_->metric_names();
  for (const char* name : {"clipped", "kl", "kl_coef"}) {
    names.emplace_back(name);
  }
  for (std::string& name : own_metric_names()) {
    names.push_back(std::move(name));
  }
  return names;
}

/// The weight of the divergence follows it (arXiv 1909.08593).
void PolicyLearning::steer(double divergence) {
  const PolicyConfig& policy = config_.policy;
  const double error = std::clamp(divergence / *policy.kl_target - 1, -0.2, 0.2);
  config_.policy.kl_coef *= 1 + error * world_.sum(answers_) / policy.kl_horizon;
}

std::vector<MetricSum> PolicyLearning::take_metrics() {
  std::vector<MetricSum> sums = rollout_->take_metrics();
  sums.push_back(std::exchange(clipped_, {}));
  const MetricSum kl = std::exchange(kl_, {});
  sums.push_back(kl);
  sums.push_back({config_.policy.kl_coef, 1});
  for (const MetricSum& own : take_own_metrics()) {
    sums.push_back(own);
  }
  if (config_.policy.kl_target.has_value()) {
    const double count = world_.sum(kl.count);
    const double sum = world_.sum(kl.sum);
    if (count > 0 && !held_out_) {
      steer(sum / count);
    }
  }
  return sums;
}

core::Json PolicyLearning::state() const {
  return {{"kl_coef", config_.policy.kl_coef}};
}

void PolicyLearning::load_state(const core::Json& state) {
  if (config_.policy.kl_target.has_value() && state.contains("kl_coef")) {
    config_.policy.kl_coef = state["kl_coef"].get<double>();
  }
}

void Grpo::judge(model::Decoder& model, Generation& generation) {
  const std::vector<double> advantages = answer_advantages(config_.policy.advantages,
                                                           generation.rewards,
                                                           generation.counted,
                                                           config_.rollout.samples,
                                                           world_);
  const auto group = static_cast<size_t>(config_.rollout.samples);
  for (size_t begin = 0; begin < generation.rewards.size(); begin += group) {
    const auto first = generation.rewards.begin() + static_cast<ptrdiff_t>(begin);
    const auto [low, high] = std::minmax_element(first, first + static_cast<ptrdiff_t>(group));
    equal_groups_.sum += *low == *high ? generation.counted[begin] : 0.0;
    equal_groups_.count += generation.counted[begin];
  }
  size_t answer = 0;
  for (data::Batch& batch : generation.batches) {
    std::vector<float>& rows = batch.attached[kAdvantages];
    for (size_t d = 0; d < document_count(batch); ++d, ++answer) {
      rows.resize(static_cast<size_t>(batch.document_offsets[d + 1]),
                  static_cast<float>(advantages[answer]));
    }
    if (updates() > 1) {  // else the ratio is 1
      batch.attached[kOldLogProbs] = old_log_probs(model, batch);
    }
    if (reference_ != nullptr) {
      batch.attached[kReferenceLogProbs] = reference_log_probs(batch);
    }
  }
}

at::Tensor Grpo::loss(model::Decoder& model, const data::Batch& batch, const Shares& shares) {
  const Tokens tokens = to_tokens(batch, model.device());
  const at::Tensor log_p_N =
      model.log_probs(model.forward(tokens.rows), tokens.targets_N, config_.rollout.temperature);
  const PolicyTokens policy = tokens_of(batch, log_p_N);
  note(policy);
  return policy_loss(config_, policy, shares.target, shares.pair);
}

std::vector<MetricSum> Grpo::take_own_metrics() {
  return {std::exchange(equal_groups_, {})};
}

}  // namespace kamerton::objective
