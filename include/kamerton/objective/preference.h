// SPDX-License-Identifier: Apache-2.0
// Learning from pairs of answers: the batch's documents 2p and 2p + 1 are pair p's better and worse
// answer, each after its prompt; targets are the answers' tokens.
#pragma once

#include "kamerton/objective/objective.h"
#include "kamerton/objective/preference_loss.h"
#include "kamerton/objective/reference.h"

namespace kamerton::objective {

/// DPO and its relatives, CPO, SimPO, ORPO. The loss is the mean over the step's pairs of their
/// losses, plus the weighted mean over tokens of the better answers' negative log-likelihood (ORPO:
/// of prompt and answer). Metrics are TRL's: rewards/chosen, rewards/rejected, rewards/accuracies,
/// rewards/margins, logps/chosen, logps/rejected.
class Preference : public Objective {
 public:
  /// `reference` may be null where the method needs none or all of its numbers are stored; both are
  /// not owned.
  Preference(ObjectiveConfig config,
             Reference* reference,
             const StoredReferences* stored = nullptr);

  /// Attaches stored numbers.
  std::vector<data::Batch> prepare(model::Decoder& model,
                                   std::vector<data::Batch> batches,
                                   const Phase& phase) override;
  Counts counts(const data::Batch& batch) const override;
  at::Tensor loss(model::Decoder& model, const data::Batch& batch, const Shares& shares) override;
  std::vector<std::string> metric_names() const override;
  std::vector<MetricSum> take_metrics() override;

 private:
  void add_reference(const data::Batch& batch, const Tokens& tokens, PairLogProbs& pairs);
  void note(const PairLogProbs& pairs, const at::Tensor& real_P);

  ObjectiveConfig config_;
  Reference* reference_;
  const StoredReferences* stored_;
  std::vector<MetricSum> sums_;
};

}  // namespace kamerton::objective
