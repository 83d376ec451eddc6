// SPDX-License-Identifier: Apache-2.0
#include "kamerton/objective/preference.h"

#include <ATen/ATen.h>

#include "kamerton/core/error.h"

#include "documents.h"
#include "pair_sums.h"

namespace kamerton::objective {
namespace {

const std::vector<std::string>& names() {
  static const std::vector<std::string> all = {"rewards/chosen",
                                               "rewards/rejected",
                                               "rewards/accuracies",
                                               "rewards/margins",
                                               "logps/chosen",
                                               "logps/rejected"};
  return all;
}

at::Tensor better_of(const at::Tensor& values_D) {
  return values_D.view({-1, 2}).select(1, 0);
}
at::Tensor worse_of(const at::Tensor& values_D) {
  return values_D.view({-1, 2}).select(1, 1);
}

/// fp32 [T], 1 at rows of better answers and their prompts.
at::Tensor better_rows(const data::Batch& batch) {
  return (document_of_rows(batch) % 2 == 0).to(at::kFloat);
}

/// ORPO's likelihood is that of prompt and answer: every token of the better documents but the
/// first.
at::Tensor whole_targets(const data::Batch& batch) {
  at::Tensor targets_N = at::tensor(batch.targets, at::kLong);
  auto* targets = targets_N.data_ptr<int64_t>();
  for (size_t d = 0; d < document_count(batch); d += 2) {
    if (targets_of(batch, d) == 0) {
      continue;
    }
    for (int64_t n = batch.document_offsets[d]; n + 1 < batch.document_offsets[d + 1]; ++n) {
      targets[n] = batch.tokens[static_cast<size_t>(n + 1)];
    }
  }
  return targets_N;
}

void check_pairs(const data::Batch& batch) {
  if (document_count(batch) % 2 != 0) {
    throw core::Error(core::ErrorKind::Internal,
                      {.where = "objective.preference",
                       .what = "a batch without whole pairs of answers",
                       .got = std::to_string(document_count(batch)) + " documents"});
  }
}

/// WPO (arXiv 2406.11827), eq. 2: how likely the model itself would say each answer, against its
/// sharpness at each token; a weight a pair, without gradient.
at::Tensor pair_weights(model::Decoder& model,
                        const at::Tensor& hidden_ND,
                        const at::Tensor& log_probs_N,
                        const Tokens& tokens,
                        const data::Batch& batch) {
  const at::NoGradGuard no_grad;
  const at::Tensor targets_D = target_counts(batch).to(log_probs_N.device());
  const at::Tensor collisions_N = model.log_collisions(hidden_ND.detach(), tokens.targets_N);
  const at::Tensor mean_D =
      sum_documents(log_probs_N.detach() - collisions_N, batch) / at::clamp_min(targets_D, 1);
  return at::exp(better_of(mean_D) + worse_of(mean_D));
}

}  // namespace

at::Tensor answer_weights(const data::Batch& batch, double tail_weight) {
  at::Tensor weights_N = at::zeros({static_cast<int64_t>(batch.tokens.size())}, at::kFloat);
  auto* weights = weights_N.mutable_data_ptr<float>();
  for (size_t d = 0; d < document_count(batch); ++d) {
    const size_t other = d ^ 1;
    const int64_t shared = tail_weight == 1.0 || other >= document_count(batch)
                               ? static_cast<int64_t>(batch.tokens.size())
                               : std::min(targets_of(batch, d), targets_of(batch, other));
    int64_t seen = 0;
    for (int64_t n = batch.document_offsets[d]; n < batch.document_offsets[d + 1]; ++n) {
      if (batch.targets[static_cast<size_t>(n)] != data::kNoTarget) {
        weights[n] = ++seen <= shared ? 1.0f : static_cast<float>(tail_weight);
      }
    }
  }
  return weights_N;
}

Preference::Preference(ObjectiveConfig config, Reference* reference, const StoredReferences* stored)
    : config_(std::move(config)), reference_(reference), stored_(stored), sums_(names().size()) {
  validate(config_);
  if (needs_reference(config_) && reference_ == nullptr && stored_ == nullptr) {
    throw core::Error(core::ErrorKind::Internal,
                      {.where = "objective.preference", .what = "no reference model was given"});
  }
}

std::vector<data::Batch> Preference::prepare(model::Decoder& /*model*/,
                                             std::vector<data::Batch> batches,
                                             const Phase& phase) {
  const ReferenceStore* store = stored_ == nullptr ? nullptr : stored_->of(phase);
  if (store != nullptr) {
    for (data::Batch& batch : batches) {
      std::vector<float>& sums = batch.attached[kReferenceSums];
      for (size_t d = 0; d < document_count(batch); ++d) {
        sums.push_back(store->log_prob(batch.source_indices[d], static_cast<int>(d % 2)));
      }
    }
  }
  return batches;
}

Counts Preference::counts(const data::Batch& batch) const {
  check_pairs(batch);
  Counts counts{.targets = batch.target_count};
  for (size_t d = 0; d < document_count(batch); d += 2) {
    const int64_t answer = targets_of(batch, d);
    if (answer > 0) {  // a pair without targets keeps collectives in step and counts for nothing
      const int64_t tokens = batch.document_offsets[d + 1] - batch.document_offsets[d];
      counts.pairs += 1;
      counts.likelihood += config_.method == "orpo" ? tokens - 1 : answer;
    }
  }
  return counts;
}

void Preference::add_reference(const data::Batch& batch,
                               const Tokens& tokens,
                               PairLogProbs& pairs) {
  at::Tensor sums_D;
  if (const auto stored = batch.attached.find(kReferenceSums); stored != batch.attached.end()) {
    sums_D = to_tensor(stored->second).to(tokens.targets_N.device());
  } else if (reference_ != nullptr) {
    const at::Tensor weights_N = answer_weights(batch, config_.ld_alpha.value_or(1.0));
    const at::Tensor log_probs_N = reference_->log_probs(tokens);
    sums_D = sum_documents(log_probs_N * weights_N.to(log_probs_N.device()), batch);
  } else {
    return;
  }
  pairs.ref_chosen_P = better_of(sums_D);
  pairs.ref_rejected_P = worse_of(sums_D);
}

at::Tensor Preference::loss(model::Decoder& model, const data::Batch& batch, const Shares& shares) {
  check_pairs(batch);
  const at::Device device = model.device();
  Tokens tokens = to_tokens(batch, device);
  PairLogProbs pairs;
  add_reference(batch, tokens, pairs);
  const Tokens answers = tokens;
  if (config_.method == "orpo") {
    tokens.targets_N = whole_targets(batch).to(device);
  }
  const at::Tensor hidden_ND = model.forward(tokens.rows);
  const at::Tensor log_probs_N = model.log_probs(hidden_ND, tokens.targets_N);
  const at::Tensor weights_N = answer_weights(batch, config_.ld_alpha.value_or(1.0)).to(device);
  const at::Tensor sums_D = sum_documents(log_probs_N * weights_N, batch);
  const at::Tensor targets_D = target_counts(batch).to(device);
  pairs.chosen_P = better_of(sums_D);
  pairs.rejected_P = worse_of(sums_D);
  pairs.chosen_tokens_P = better_of(targets_D);
  pairs.rejected_tokens_P = worse_of(targets_D);
  const at::Tensor real_P = (pairs.chosen_tokens_P > 0).to(at::kFloat);
  note(pairs, real_P);
  at::Tensor losses_P = pair_losses(config_, pairs) * real_P;
  if (config_.weighting) {
    losses_P = losses_P * pair_weights(model, hidden_ND, log_probs_N, answers, batch);
  }
  const at::Tensor compared = losses_P.sum() * shares.pair;
  const double likelihood = likelihood_weight(config_) * shares.likelihood;
  return likelihood == 0
             ? compared
             : compared - likelihood * (log_probs_N * better_rows(batch).to(device)).sum();
}

void Preference::note(const PairLogProbs& pairs, const at::Tensor& real_P) {
  const auto [chosen, rejected] = implicit_rewards(config_, pairs);
  const auto count = real_P.sum().item<double>();
  const auto add = [&](size_t i, const at::Tensor& values_P) {
    sums_[i].sum += (values_P * real_P).sum().item<double>();
    sums_[i].count += count;
  };
  add(0, chosen);
  add(1, rejected);
  add(2, (chosen > rejected).to(at::kFloat));
  add(3, chosen - rejected);
  const auto [chosen_log_probs, rejected_log_probs] = answer_log_probs(config_, pairs);
  add(4, chosen_log_probs.detach());
  add(5, rejected_log_probs.detach());
}

std::vector<std::string> Preference::metric_names() const {
  return names();
}

std::vector<MetricSum> Preference::take_metrics() {
  return std::exchange(sums_, std::vector<MetricSum>(names().size()));
}

}  // namespace kamerton::objective
