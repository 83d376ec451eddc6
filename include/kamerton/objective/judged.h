// SPDX-License-Identifier: Apache-2.0
// Learning from answers that are called good or bad one by one (KTO).
#pragma once

#include "kamerton/objective/objective.h"
#include "kamerton/objective/preference_loss.h"
#include "kamerton/objective/reference.h"

namespace kamerton::objective {

/// D judged answers of a micro-batch; fp32 [D].
struct JudgedLogProbs {
  at::Tensor policy_D;  ///< sum over the answer's tokens of log p(token); carries gradients
  at::Tensor reference_D;
  at::Tensor good_D;  ///< 1 good, 0 bad
};

/// KTO (Ethayarajh et al. 2024, eq. 7) with `kl`, the estimated divergence from the reference, 0 or
/// more; or apo_zero_unpaired (D'Oosterlinck et al. 2024), which needs none. One value an answer,
/// weighted by desirable_weight and undesirable_weight.
at::Tensor judged_losses(const ObjectiveConfig& config, const JudgedLogProbs& answers, double kl);

/// The loss is the mean over the step's answers. The divergence is estimated once a step, over all
/// its rows on all ranks, from prompts with the answers to other prompts
/// (data::Example::mismatched); it carries no gradient. Metrics are TRL's: rewards/chosen,
/// rewards/rejected, rewards/margins, logps/chosen, logps/rejected, kl.
class Kto : public Objective {
 public:
  /// `reference` may be null when all of its numbers are stored; both are not owned.
  Kto(ObjectiveConfig config,
      Reference* reference,
      const StoredReferences* stored,
      const comm::Group& world);

  /// Estimates the divergence and takes the mismatched answers out.
  std::vector<data::Batch> prepare(model::Decoder& model,
                                   std::vector<data::Batch> batches,
                                   const Phase& phase) override;
  Counts counts(const data::Batch& batch) const override;
  at::Tensor loss(model::Decoder& model, const data::Batch& batch, const Shares& shares) override;
  std::vector<std::string> metric_names() const override;
  std::vector<MetricSum> take_metrics() override;

 private:
  double divergence(model::Decoder& model,
                    const std::vector<data::Batch>& batches,
                    const ReferenceStore* store);

  ObjectiveConfig config_;
  Reference* reference_;
  const StoredReferences* stored_;
  comm::Group world_;
  double kl_ = 0;
  MetricSum chosen_reward_, rejected_reward_, chosen_log_prob_, rejected_log_prob_, kl_sum_;
};

}  // namespace kamerton::objective
