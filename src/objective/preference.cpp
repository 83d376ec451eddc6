// SPDX-License-Identifier: Apache-2.0
#include "kamerton/objective/preference.h"

#include <ATen/ATen.h>

#include "kamerton/core/error.h"

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

/// Where a batch's answers lie. D documents, D even.
struct Answers {
  at::Tensor document_N;  ///< int64, which document a row belongs to
  at::Tensor counts_N;    ///< fp32, 1 at an answer's targets, 0 elsewhere
  at::Tensor weight_N;    ///< fp32, counts_N with the tail weight of LD-DPO
  at::Tensor length_D;    ///< fp32, targets
  at::Tensor better_N;    ///< bool, rows of better answers and their prompts
  at::Tensor real_P;      ///< fp32, 1 for a pair, 0 for one without targets
};

int64_t targets_between(const data::Batch& batch, int64_t begin, int64_t end) {
  int64_t count = 0;
  for (int64_t n = begin; n < end; ++n) {
    count += batch.targets[static_cast<size_t>(n)] != data::kNoTarget ? 1 : 0;
  }
  return count;
}

Answers find_answers(const data::Batch& batch, double tail_weight) {
  const auto rows = static_cast<int64_t>(batch.tokens.size());
  const size_t documents = batch.document_offsets.size() - 1;
  Answers answers{at::empty({rows}, at::kLong),
                  at::zeros({rows}, at::kFloat),
                  at::zeros({rows}, at::kFloat),
                  at::empty({static_cast<int64_t>(documents)}, at::kFloat),
                  at::empty({rows}, at::kBool),
                  {}};
  for (size_t d = 0; d < documents; ++d) {
    answers.length_D.data_ptr<float>()[d] = static_cast<float>(
        targets_between(batch, batch.document_offsets[d], batch.document_offsets[d + 1]));
  }
  answers.real_P = (answers.length_D.view({-1, 2}).select(1, 0) > 0).to(at::kFloat);
  for (size_t d = 0; d < documents; ++d) {
    const auto* lengths = answers.length_D.const_data_ptr<float>();
    const float shared = std::min(lengths[d], lengths[d ^ 1]);
    float seen = 0;
    for (int64_t n = batch.document_offsets[d]; n < batch.document_offsets[d + 1]; ++n) {
      answers.document_N.data_ptr<int64_t>()[n] = static_cast<int64_t>(d);
      answers.better_N.data_ptr<bool>()[n] = d % 2 == 0;
      if (batch.targets[static_cast<size_t>(n)] == data::kNoTarget) {
        continue;
      }
      seen += 1;
      answers.counts_N.data_ptr<float>()[n] = 1;
      answers.weight_N.data_ptr<float>()[n] = seen <= shared ? 1 : static_cast<float>(tail_weight);
    }
  }
  return answers;
}

void move(Answers& answers, at::Device device) {
  for (at::Tensor* tensor : {&answers.document_N,
                             &answers.counts_N,
                             &answers.weight_N,
                             &answers.length_D,
                             &answers.better_N,
                             &answers.real_P}) {
    *tensor = tensor->to(device);
  }
}

/// Sums over the rows of each document -> even documents, odd documents.
std::pair<at::Tensor, at::Tensor> sum_answers(const at::Tensor& values_N, const Answers& answers) {
  const at::Tensor sums_D = at::zeros_like(answers.length_D)
                                .index_add(0, answers.document_N, values_N * answers.weight_N);
  const at::Tensor sums_P2 = sums_D.view({-1, 2});
  return {sums_P2.select(1, 0), sums_P2.select(1, 1)};
}

/// ORPO's likelihood is that of prompt and answer: every token of the better documents but the
/// first.
at::Tensor whole_targets(const data::Batch& batch) {
  at::Tensor targets_N = at::tensor(batch.targets, at::kLong);
  auto* targets = targets_N.data_ptr<int64_t>();
  for (size_t d = 0; d + 1 < batch.document_offsets.size(); d += 2) {
    if (targets_between(batch, batch.document_offsets[d], batch.document_offsets[d + 1]) == 0) {
      continue;
    }
    for (int64_t n = batch.document_offsets[d]; n + 1 < batch.document_offsets[d + 1]; ++n) {
      targets[n] = batch.tokens[static_cast<size_t>(n + 1)];
    }
  }
  return targets_N;
}

void check_pairs(const data::Batch& batch) {
  if (batch.document_offsets.size() % 2 == 0) {
    throw core::Error(core::ErrorKind::Internal,
                      {.where = "objective.preference",
                       .what = "a batch without whole pairs of answers",
                       .got = std::to_string(batch.document_offsets.size() - 1) + " documents"});
  }
}

}  // namespace

at::Tensor AdapterOff::log_probs(const Tokens& tokens) {
  const at::NoGradGuard no_grad;
  const tuning::AdapterSwitch off(lora_);
  return model_.log_probs(model_.forward(tokens.rows), tokens.targets_N);
}

at::Tensor OtherModel::log_probs(const Tokens& tokens) {
  const at::NoGradGuard no_grad;
  return model_.log_probs(model_.forward(tokens.rows), tokens.targets_N);
}

Preference::Preference(ObjectiveConfig config, Reference* reference)
    : config_(std::move(config)), reference_(reference), sums_(names().size()) {
  validate(config_);
  if (needs_reference(config_) && reference_ == nullptr) {
    throw core::Error(core::ErrorKind::Internal,
                      {.where = "objective.preference", .what = "no reference model was given"});
  }
}

Counts Preference::counts(const data::Batch& batch) const {
  check_pairs(batch);
  Counts counts{.targets = batch.target_count};
  for (size_t d = 0; d + 1 < batch.document_offsets.size(); d += 2) {
    const int64_t begin = batch.document_offsets[d];
    const int64_t end = batch.document_offsets[d + 1];
    const int64_t answer = targets_between(batch, begin, end);
    if (answer > 0) {  // a pair without targets keeps collectives in step and counts for nothing
      counts.pairs += 1;
      counts.likelihood += config_.method == "orpo" ? end - begin - 1 : answer;
    }
  }
  return counts;
}

at::Tensor Preference::loss(model::Decoder& model, const data::Batch& batch, const Shares& shares) {
  check_pairs(batch);
  Tokens tokens = to_tokens(batch, model.device());
  Answers answers = find_answers(batch, config_.ld_alpha.value_or(1.0));
  move(answers, model.device());
  PairLogProbs pairs;
  if (reference_ != nullptr) {
    std::tie(pairs.ref_chosen_P, pairs.ref_rejected_P) =
        sum_answers(reference_->log_probs(tokens), answers);
  }
  if (config_.method == "orpo") {
    tokens.targets_N = whole_targets(batch).to(model.device());
  }
  const at::Tensor log_probs_N = model.log_probs(model.forward(tokens.rows), tokens.targets_N);
  std::tie(pairs.chosen_P, pairs.rejected_P) = sum_answers(log_probs_N, answers);
  pairs.chosen_tokens_P = answers.length_D.view({-1, 2}).select(1, 0);
  pairs.rejected_tokens_P = answers.length_D.view({-1, 2}).select(1, 1);
  note(pairs, answers.real_P);
  const double likelihood = likelihood_weight(config_) * shares.likelihood;
  const at::Tensor compared = (pair_losses(config_, pairs) * answers.real_P).sum() * shares.pair;
  return likelihood == 0 ? compared
                         : compared - likelihood * (log_probs_N * answers.better_N).sum();
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
