// SPDX-License-Identifier: Apache-2.0
// Learning from the model's own answers: GRPO (with RLOO's advantages) and PPO.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kamerton/objective/policy_loss.h"
#include "kamerton/objective/rollout.h"

namespace kamerton::objective {

/// What both share: a step is one rollout and epochs x mini_batches updates; the divergence from
/// the reference and its adaptive weight. Loss and gradients do not depend on the number of ranks.
class PolicyLearning : public Objective {
 public:
  /// `reference` may be null without policy.kl_coef; not owned.
  PolicyLearning(const ObjectiveConfig& config,
                 std::unique_ptr<Rollout> rollout,
                 Reference* reference,
                 const comm::Group& world);

  std::vector<data::Batch> prepare(model::Decoder& model,
                                   std::vector<data::Batch> batches,
                                   const Phase& phase) override;
  int64_t updates() const override;
  bool belongs(size_t batch, int64_t update) const override;
  Counts counts(const data::Batch& batch) const override;
  std::vector<std::string> metric_names() const override;
  std::vector<MetricSum> take_metrics() override;
  /// {"kl_coef"}
  core::Json state() const override;
  void load_state(const core::Json& state) override;

 protected:
  /// Attaches advantages, and whatever else the loss needs, to the generation's batches.
  virtual void judge(model::Decoder& model, Generation& generation) = 0;
  virtual std::vector<std::string> own_metric_names() const = 0;
  virtual std::vector<MetricSum> take_own_metrics() = 0;

  /// Log-probabilities, fp32 [T] on the CPU, without gradient.
  std::vector<float> old_log_probs(model::Decoder& model, const data::Batch& batch) const;
  std::vector<float> reference_log_probs(const data::Batch& batch) const;
  /// The batch's tokens with what is attached to them; log_p is that of rows [T] given.
  PolicyTokens tokens_of(const data::Batch& batch, const at::Tensor& log_p_N) const;
  /// [M] of an attached [T].
  at::Tensor attached(const data::Batch& batch, const char* name, at::Device device) const;
  void note(const PolicyTokens& tokens);

  ObjectiveConfig config_;
  std::unique_ptr<Rollout> rollout_;
  Reference* reference_;
  comm::Group world_;

 private:
  void steer(double divergence);

  bool held_out_ = false;
  double answers_ = 0;  ///< of the last training rollout, this rank's
  MetricSum kl_, clipped_;
};

/// Group relative policy optimisation (arXiv 2402.03300) and its relatives; no value model.
class Grpo : public PolicyLearning {
 public:
  using PolicyLearning::PolicyLearning;
  at::Tensor loss(model::Decoder& model, const data::Batch& batch, const Shares& shares) override;

 protected:
  void judge(model::Decoder& model, Generation& generation) override;
  std::vector<std::string> own_metric_names() const override { return {"equal_groups"}; }
  std::vector<MetricSum> take_own_metrics() override;

 private:
  MetricSum equal_groups_;  ///< prompts whose answers all have one reward: nothing is learned there
};

/// Proximal policy optimisation (arXiv 1707.06347) with a value head on the policy's last hidden
/// states: rewards of tokens are -kl_coef times the divergence, and the answer's at its last token.
class Ppo : public PolicyLearning {
 public:
  using PolicyLearning::PolicyLearning;
  at::Tensor loss(model::Decoder& model, const data::Batch& batch, const Shares& shares) override;

 protected:
  void judge(model::Decoder& model, Generation& generation) override;
  std::vector<std::string> own_metric_names() const override { return {"value_loss", "value"}; }
  std::vector<MetricSum> take_own_metrics() override;

 private:
  /// Log-probabilities and values of the generating policy, attached; rewards of tokens by answer.
  void look_back(model::Decoder& model, data::Batch& batch) const;
  MetricSum value_loss_, value_;
};

}  // namespace kamerton::objective
