// SPDX-License-Identifier: Apache-2.0
#include "kamerton/objective/score.h"

#include <utility>

#include <ATen/ATen.h>

#include "documents.h"

namespace kamerton::objective {
namespace {

/// The row whose score is the document's.
int64_t score_row(const data::Batch& batch, size_t document, std::optional<int64_t> pad) {
  const int64_t begin = batch.document_offsets[document];
  for (int64_t n = batch.document_offsets[document + 1] - 1; n >= begin && pad; --n) {
    if (batch.tokens[static_cast<size_t>(n)] != *pad) {
      return n;
    }
  }
  return pad ? begin : batch.document_offsets[document + 1] - 1;
}

}  // namespace

at::Tensor sequence_scores(model::Decoder& model, const data::Batch& batch) {
  std::vector<int64_t> rows;
  for (size_t d = 0; d < document_count(batch); ++d) {
    rows.push_back(score_row(batch, d, model.config().pad_id));
  }
  const Tokens tokens = to_tokens(batch, model.device());
  const at::Tensor hidden_ND = model.forward(tokens.rows);
  const at::Tensor picked_DD =
      hidden_ND.index_select(0, at::tensor(rows, at::kLong).to(model.device()));
  return model.logits(picked_DD).squeeze(1);
}

at::Tensor bradley_terry(const at::Tensor& better_P,
                         const at::Tensor& worse_P,
                         const at::Tensor& margin_P,
                         double center) {
  const at::Tensor losses_P = -at::log_sigmoid(better_P - worse_P - margin_P);
  return center == 0 ? losses_P : losses_P + center * at::square(better_P + worse_P);
}

RewardLearning::RewardLearning(const ObjectiveConfig& config) : config_(config) {
  validate(config_);
}

Counts RewardLearning::counts(const data::Batch& batch) const {
  Counts counts{.targets = batch.target_count};
  for (size_t d = 0; d < document_count(batch); d += 2) {
    counts.pairs += targets_of(batch, d) > 0 ? 1 : 0;
  }
  return counts;
}

at::Tensor RewardLearning::loss(model::Decoder& model,
                                const data::Batch& batch,
                                const Shares& shares) {
  const at::Device device = model.device();
  const at::Tensor scores_P2 = sequence_scores(model, batch).view({-1, 2});
  const at::Tensor better_P = scores_P2.select(1, 0);
  const at::Tensor worse_P = scores_P2.select(1, 1);
  const at::Tensor margin_P = to_tensor(batch.marks).view({-1, 2}).select(1, 0).to(device);
  const at::Tensor real_P =
      (target_counts(batch).view({-1, 2}).select(1, 0) > 0).to(device, at::kFloat);
  const auto count = real_P.sum().item<double>();
  const auto add = [&](MetricSum& metric, const at::Tensor& values_P) {
    metric.sum += (values_P.detach() * real_P).sum().item<double>();
    metric.count += count;
  };
  add(accuracy_, (better_P > worse_P).to(at::kFloat));
  add(margin_, better_P - worse_P);
  add(reward_, 0.5 * (better_P + worse_P));
  return (bradley_terry(better_P, worse_P, margin_P, config_.center_rewards) * real_P).sum() *
         shares.pair;
}

std::vector<std::string> RewardLearning::metric_names() const {
  return {"accuracy", "margin", "mean_reward"};
}

std::vector<MetricSum> RewardLearning::take_metrics() {
  return {std::exchange(accuracy_, {}), std::exchange(margin_, {}), std::exchange(reward_, {})};
}

at::Tensor StepRewardLearning::loss(model::Decoder& model,
                                    const data::Batch& batch,
                                    const Shares& shares) {
  const Tokens tokens = to_tokens(batch, model.device());
  const at::Tensor rows_M = tokens.targets_N.ne(data::kNoTarget).nonzero().squeeze(1);
  const at::Tensor good_M = tokens.targets_N.index_select(0, rows_M).to(at::kFloat);
  const at::Tensor score_M =
      model.logits(model.forward(tokens.rows).index_select(0, rows_M)).squeeze(1);
  const auto count = static_cast<double>(rows_M.numel());
  accuracy_.sum += ((score_M.detach() > 0) == (good_M > 0)).sum().item<double>();
  accuracy_.count += count;
  reward_.sum += score_M.detach().sum().item<double>();
  reward_.count += count;
  const at::Tensor sign_M = 2 * good_M - 1;
  return -at::log_sigmoid(sign_M * score_M).sum() * shares.target;
}

std::vector<std::string> StepRewardLearning::metric_names() const {
  return {"accuracy", "mean_reward"};
}

std::vector<MetricSum> StepRewardLearning::take_metrics() {
  return {std::exchange(accuracy_, {}), std::exchange(reward_, {})};
}

}  // namespace kamerton::objective
