// SPDX-License-Identifier: Apache-2.0
// Learning from rewarded answers, as functions of numbers alone: advantages, GAE, clipped losses.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "kamerton/comm/group.h"
#include "kamerton/objective/config.h"

namespace kamerton::objective {

/// M generated tokens of S answers; all fp32 or fp64 [M] but the answers' numbers.
struct PolicyTokens {
  at::Tensor log_p_M;      ///< of the policy as it is; carries gradients
  at::Tensor old_log_p_M;  ///< of the policy that generated; undefined: the same as it is
  at::Tensor ref_log_p_M;  ///< of the reference; undefined: no divergence is looked at
  at::Tensor advantage_M;
  at::Tensor answer_M;  ///< int64, which answer a token belongs to
  int64_t answers = 0;  ///< S
};

/// Estimates of KL(policy || reference), one a token: k1 log p - log r, k2 half its square, k3
/// r/p - log(r/p) - 1 (Schulman 2020).
at::Tensor kl_estimate(const std::string& estimator,
                       const at::Tensor& log_p,
                       const at::Tensor& ref_log_p);

/// GRPO's losses by token, with the divergence (arXiv 2402.03300, 2503.14476, 2506.13585 for cispo,
/// 2511.20347 for sapo): what the method's mean is taken of. [M]
at::Tensor policy_losses(const ObjectiveConfig& config, const PolicyTokens& tokens);

/// The part of the step's loss that these answers make: means over the step's tokens (dapo, bnpo,
/// cispo), over its answers of means over tokens (grpo, sapo) or of sums (luspo), or over answers
/// times max_new_tokens (dr_grpo). `token_share`, `answer_share`: reciprocals of the step's counts.
at::Tensor policy_loss(const ObjectiveConfig& config,
                       const PolicyTokens& tokens,
                       double token_share,
                       double answer_share);

/// Ratios that the clipping holds back, a share of the tokens. Without gradient.
double clipped_share(const ObjectiveConfig& config, const PolicyTokens& tokens);

/// Advantages of answers that stand in groups of `group`, by objective.policy.advantages; `counted`
/// [as many]: 0 for answers that only keep ranks in step. Deviations are unbiased, over the group
/// or over all ranks' answers; collective where that is so.
std::vector<double> answer_advantages(const std::string& kind,
                                      const std::vector<double>& rewards,
                                      const std::vector<double>& counted,
                                      int64_t group,
                                      const comm::Group& world);

/// Generalised advantage estimation over one answer's tokens (Schulman et al. 2016).
struct Estimate {
  std::vector<double> advantages;
  std::vector<double> returns;  ///< advantages + values
};
Estimate estimate_advantages(const std::vector<double>& rewards,
                             const std::vector<double>& values,
                             double gamma,
                             double lambda);

/// (x - mean) / sqrt(variance + 1e-8) over all ranks' values, variance unbiased. Collective.
void whiten(std::vector<std::vector<double>>& values, const comm::Group& world);

/// PPO's losses by token (Schulman et al. 2017), [M]: the clipped policy loss, and half the larger
/// of the squared errors of the value and of the value clipped around the old one.
at::Tensor ppo_policy_losses(const PolicyConfig& config, const PolicyTokens& tokens);
at::Tensor ppo_value_losses(const PolicyConfig& config,
                            const at::Tensor& value_M,
                            const at::Tensor& old_value_M,
                            const at::Tensor& return_M);

}  // namespace kamerton::objective
