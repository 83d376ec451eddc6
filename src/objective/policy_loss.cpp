// SPDX-License-Identifier: Apache-2.0
#include "kamerton/objective/policy_loss.h"

#include <cmath>

#include <ATen/ATen.h>

namespace kamerton::objective {
namespace {

constexpr double kSapoPositive = 1.0;  // temperatures of arXiv 2511.20347, TRL's defaults
constexpr double kSapoNegative = 1.05;

std::string loss_of(const ObjectiveConfig& config) {
  return config.loss.empty() ? "dapo" : config.loss.front();
}

double clip_high(const ObjectiveConfig& config) {
  const double otherwise = loss_of(config) == "cispo" ? 5.0 : config.policy.clip;
  return config.policy.clip_high.value_or(otherwise);
}

at::Tensor sum_by_answer(const at::Tensor& values_M, const PolicyTokens& tokens) {
  return at::zeros({tokens.answers}, values_M.options()).index_add(0, tokens.answer_M, values_M);
}

at::Tensor tokens_by_answer(const PolicyTokens& tokens) {
  return sum_by_answer(at::ones_like(tokens.log_p_M.detach()), tokens).clamp_min(1);
}

/// log of the ratio of new to old probability, or of an answer's geometric mean.
at::Tensor log_ratio(const PolicyConfig& config, const PolicyTokens& tokens) {
  const at::Tensor old_M =
      tokens.old_log_p_M.defined() ? tokens.old_log_p_M : tokens.log_p_M.detach();
  const at::Tensor ratio_M = tokens.log_p_M - old_M;
  if (config.ratio == "token") {
    return ratio_M;
  }
  const at::Tensor mean_S = sum_by_answer(ratio_M, tokens) / tokens_by_answer(tokens);
  return mean_S.index_select(0, tokens.answer_M);
}

at::Tensor clipped_loss(const ObjectiveConfig& config,
                        const at::Tensor& ratio_M,
                        const at::Tensor& advantage_M) {
  const at::Tensor inside_M = at::clamp(ratio_M, 1 - config.policy.clip, 1 + clip_high(config));
  const at::Tensor outer_M =
      config.policy.delta ? at::clamp_max(ratio_M, *config.policy.delta) : ratio_M;
  return -at::minimum(outer_M * advantage_M, inside_M * advantage_M);
}

at::Tensor soft_loss(const at::Tensor& ratio_M, const at::Tensor& advantage_M) {
  const at::Tensor temperature_M = at::where(advantage_M > 0,
                                             at::full_like(ratio_M, kSapoPositive),
                                             at::full_like(ratio_M, kSapoNegative));
  return -at::sigmoid(temperature_M * (ratio_M - 1)) * 4 / temperature_M * advantage_M;
}

/// VESPO's weight of an answer (arXiv 2602.10693): a gamma density of its whole ratio, 1 at 1, of
/// other shape for good and bad answers (TRL's defaults). Without gradient.
at::Tensor gamma_weight(const PolicyTokens& tokens) {
  const at::NoGradGuard no_grad;
  if (!tokens.old_log_p_M.defined()) {
    return at::ones_like(tokens.log_p_M);
  }
  const at::Tensor ratio_M = at::clamp(tokens.log_p_M - tokens.old_log_p_M, -20.0, 20.0);
  const at::Tensor log_w_M = at::clamp(sum_by_answer(ratio_M, tokens), std::log(1e-8), 20.0)
                                 .index_select(0, tokens.answer_M);
  const at::Tensor good_M = tokens.advantage_M >= 0;
  const at::Tensor k_M = 3.0 - good_M.to(log_w_M.scalar_type());       // 2 for good ones, 3 for bad
  const at::Tensor lambda_M = 2.0 + good_M.to(log_w_M.scalar_type());  // 3 for good ones, 2 for bad
  return at::exp(lambda_M + k_M * log_w_M - lambda_M * at::exp(log_w_M));
}

/// Sum, squares and count over all ranks -> mean and unbiased deviation.
struct Moments {
  double mean = 0;
  double variance = 0;
};

Moments moments_of(const std::vector<double>& values,
                   const std::vector<double>& counted,
                   const comm::Group& world) {
  double sum = 0;
  double count = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    sum += values[i] * counted[i];
    count += counted[i];
  }
  count = world.sum(count);
  const double mean = world.sum(sum) / std::max(count, 1.0);
  double squares = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    squares += counted[i] * (values[i] - mean) * (values[i] - mean);
  }
  return {mean, world.sum(squares) / std::max(count - 1, 1.0)};
}

}  // namespace

at::Tensor kl_estimate(const std::string& estimator,
                       const at::Tensor& log_p,
                       const at::Tensor& ref_log_p) {
  const at::Tensor d = ref_log_p - log_p;
  if (estimator == "k1") {
    return -d;
  }
  return estimator == "k2" ? 0.5 * at::square(d) : at::exp(d) - d - 1;
}

at::Tensor policy_losses(const ObjectiveConfig& config, const PolicyTokens& tokens) {
  const at::Tensor ratio_M = at::exp(log_ratio(config.policy, tokens));
  const std::string loss = loss_of(config);
  at::Tensor losses_M;
  if (loss == "cispo") {
    losses_M =
        -at::clamp_max(ratio_M, clip_high(config)).detach() * tokens.advantage_M * tokens.log_p_M;
  } else if (loss == "vespo") {
    losses_M = -gamma_weight(tokens) * tokens.advantage_M * tokens.log_p_M;
  } else if (loss == "sapo") {
    losses_M = soft_loss(ratio_M, tokens.advantage_M);
  } else {
    losses_M = clipped_loss(config, ratio_M, tokens.advantage_M);
  }
  if (config.policy.kl_coef > 0 && tokens.ref_log_p_M.defined()) {
    const at::Tensor kl_M =
        kl_estimate(config.policy.kl_estimator, tokens.log_p_M, tokens.ref_log_p_M);
    losses_M = losses_M +
               config.policy.kl_coef * (config.policy.kl_bias_correction ? kl_M * ratio_M : kl_M);
  }
  return losses_M;
}

at::Tensor policy_loss(const ObjectiveConfig& config,
                       const PolicyTokens& tokens,
                       double token_share,
                       double answer_share) {
  const at::Tensor losses_M = policy_losses(config, tokens);
  const std::string loss = loss_of(config);
  if (loss == "grpo" || loss == "sapo") {
    return (sum_by_answer(losses_M, tokens) / tokens_by_answer(tokens)).sum() * answer_share;
  }
  if (loss == "luspo") {
    return losses_M.sum() * answer_share;
  }
  if (loss == "dr_grpo") {
    return losses_M.sum() * answer_share / static_cast<double>(config.rollout.max_new_tokens);
  }
  return losses_M.sum() * token_share;
}

double clipped_share(const ObjectiveConfig& config, const PolicyTokens& tokens) {
  if (tokens.log_p_M.numel() == 0) {
    return 0;
  }
  const at::Tensor ratio_M = at::exp(log_ratio(config.policy, tokens)).detach();
  const at::Tensor low_M = (ratio_M < 1 - config.policy.clip).logical_and(tokens.advantage_M < 0);
  const at::Tensor high_M = (ratio_M > 1 + clip_high(config)).logical_and(tokens.advantage_M > 0);
  return low_M.logical_or(high_M).to(at::kDouble).mean().item<double>();
}

std::vector<double> answer_advantages(const std::string& kind,
                                      const std::vector<double>& rewards,
                                      const std::vector<double>& counted,
                                      int64_t group,
                                      const comm::Group& world) {
  std::vector<double> result(rewards.size(), 0.0);
  const auto size = static_cast<size_t>(group);
  for (size_t begin = 0; begin < rewards.size(); begin += size) {
    double sum = 0;
    for (size_t i = begin; i < begin + size; ++i) {
      sum += rewards[i];
    }
    const double mean = sum / static_cast<double>(group);
    double squares = 0;
    for (size_t i = begin; i < begin + size; ++i) {
      const bool others = kind.starts_with("rloo") && group > 1;
      result[i] =
          rewards[i] - (others ? (sum - rewards[i]) / static_cast<double>(group - 1) : mean);
      squares += (rewards[i] - mean) * (rewards[i] - mean);
    }
    if (kind == "group") {
      const double deviation = std::sqrt(squares / std::max(1.0, static_cast<double>(group - 1)));
      for (size_t i = begin; i < begin + size; ++i) {
        result[i] /= deviation + 1e-4;
      }
    }
  }
  if (kind == "batch" || kind == "rloo_normalized") {
    const Moments all = moments_of(kind == "batch" ? rewards : result, counted, world);
    for (double& advantage : result) {
      advantage =
          (advantage - (kind == "batch" ? 0.0 : all.mean)) / (std::sqrt(all.variance) + 1e-4);
    }
  }
  for (size_t i = 0; i < result.size(); ++i) {
    result[i] *= counted[i];
  }
  return result;
}

Estimate estimate_advantages(const std::vector<double>& rewards,
                             const std::vector<double>& values,
                             double gamma,
                             double lambda) {
  Estimate estimate;
  estimate.advantages.resize(rewards.size());
  estimate.returns.resize(rewards.size());
  double last = 0;
  for (size_t t = rewards.size(); t-- > 0;) {
    const double next = t + 1 < values.size() ? values[t + 1] : 0.0;
    const double delta = rewards[t] + gamma * next - values[t];
    last = delta + gamma * lambda * last;
    estimate.advantages[t] = last;
    estimate.returns[t] = last + values[t];
  }
  return estimate;
}

void whiten(std::vector<std::vector<double>>& values, const comm::Group& world) {
  std::vector<double> flat;
  for (const std::vector<double>& one : values) {
    flat.insert(flat.end(), one.begin(), one.end());
  }
  const Moments all = moments_of(flat, std::vector<double>(flat.size(), 1.0), world);
  const double scale = 1 / std::sqrt(all.variance + 1e-8);
  for (std::vector<double>& one : values) {
    for (double& value : one) {
      value = (value - all.mean) * scale;
    }
  }
}

at::Tensor ppo_policy_losses(const PolicyConfig& config, const PolicyTokens& tokens) {
  const at::Tensor ratio_M = at::exp(log_ratio(config, tokens));
  const at::Tensor inside_M =
      at::clamp(ratio_M, 1 - config.clip, 1 + config.clip_high.value_or(config.clip));
  return at::maximum(-tokens.advantage_M * ratio_M, -tokens.advantage_M * inside_M);
}

at::Tensor ppo_value_losses(const PolicyConfig& config,
                            const at::Tensor& value_M,
                            const at::Tensor& old_value_M,
                            const at::Tensor& return_M) {
  const at::Tensor moved_M =
      old_value_M + at::clamp(value_M - old_value_M, -config.value_clip, config.value_clip);
  return 0.5 * at::maximum(at::square(value_M - return_M), at::square(moved_M - return_M));
}

}  // namespace kamerton::objective
