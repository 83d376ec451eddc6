// SPDX-License-Identifier: Apache-2.0
// Learning from pairs of answers: the batch's documents 2p and 2p + 1 are pair p's better and worse
// answer, each after its prompt; targets are the answers' tokens.
#pragma once

#include <memory>

#include "kamerton/objective/objective.h"
#include "kamerton/objective/preference_loss.h"
#include "kamerton/tuning/lora.h"

namespace kamerton::objective {

/// The model that answers are compared with. It is not trained.
class Reference {
 public:
  virtual ~Reference() = default;
  /// log p(target) a row, fp32 [N], 0 where there is none; without gradient. Collective when the
  /// model is sharded.
  virtual at::Tensor log_probs(const Tokens& tokens) = 0;
};

/// The trained model without its adapter: the base model.
class AdapterOff : public Reference {
 public:
  AdapterOff(model::Decoder& model, tuning::Lora& lora) : model_(model), lora_(lora) {}
  at::Tensor log_probs(const Tokens& tokens) override;

 private:
  model::Decoder& model_;
  tuning::Lora& lora_;
};

/// A model of its own, placed by the caller.
class OtherModel : public Reference {
 public:
  explicit OtherModel(model::Decoder& model) : model_(model) {}
  at::Tensor log_probs(const Tokens& tokens) override;

 private:
  model::Decoder& model_;
};

/// DPO and its relatives, CPO, SimPO, ORPO. The loss is the mean over the step's pairs of their
/// losses, plus the weighted mean over tokens of the better answers' negative log-likelihood (ORPO:
/// of prompt and answer). Metrics are TRL's: rewards/chosen, rewards/rejected, rewards/accuracies,
/// rewards/margins, logps/chosen, logps/rejected.
class Preference : public Objective {
 public:
  /// `reference` may be null where the method needs none; not owned.
  Preference(ObjectiveConfig config, Reference* reference);

  Counts counts(const data::Batch& batch) const override;
  at::Tensor loss(model::Decoder& model, const data::Batch& batch, const Shares& shares) override;
  std::vector<std::string> metric_names() const override;
  std::vector<MetricSum> take_metrics() override;

 private:
  void note(const PairLogProbs& pairs, const at::Tensor& real_P);

  ObjectiveConfig config_;
  Reference* reference_;
  std::vector<MetricSum> sums_;
};

}  // namespace kamerton::objective
