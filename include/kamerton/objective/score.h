// SPDX-License-Identifier: Apache-2.0
// Models that score answers: reading them, and learning them from pairs.
#pragma once

#include <vector>

#include "kamerton/objective/config.h"
#include "kamerton/objective/objective.h"

namespace kamerton::objective {

/// The score of each document, fp32 [D], by a model with a score head: that of its last token but
/// padding, as transformers' sequence classifiers read it (where end and padding token are one, the
/// token before the end). Differentiable; collective when the model is sharded.
at::Tensor sequence_scores(model::Decoder& model, const data::Batch& batch);

/// Bradley-Terry, one value a pair: -log sigmoid(r_better - r_worse - margin), plus `center` times
/// (r_better + r_worse)^2 (Eisenstein et al. 2023). fp32 [P].
at::Tensor bradley_terry(const at::Tensor& better_P,
                         const at::Tensor& worse_P,
                         const at::Tensor& margin_P,
                         double center);

/// A reward model from pairs of answers (documents 2p and 2p + 1), with the data's margins. The
/// loss is the mean over the step's pairs. Metrics: accuracy, margin, mean_reward.
class RewardLearning : public Objective {
 public:
  explicit RewardLearning(const ObjectiveConfig& config);

  Counts counts(const data::Batch& batch) const override;
  at::Tensor loss(model::Decoder& model, const data::Batch& batch, const Shares& shares) override;
  std::vector<std::string> metric_names() const override;
  std::vector<MetricSum> take_metrics() override;

 private:
  ObjectiveConfig config_;
  MetricSum accuracy_, margin_, reward_;
};

/// A process reward model: the score at each step's last token says whether the step is a good one.
/// The loss is the mean over the step's steps of their binary cross-entropy. Metrics: accuracy,
/// mean_reward.
class StepRewardLearning : public Objective {
 public:
  at::Tensor loss(model::Decoder& model, const data::Batch& batch, const Shares& shares) override;
  std::vector<std::string> metric_names() const override;
  std::vector<MetricSum> take_metrics() override;

 private:
  MetricSum accuracy_, reward_;
};

}  // namespace kamerton::objective
