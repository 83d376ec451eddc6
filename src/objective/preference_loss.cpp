// SPDX-License-Identifier: Apache-2.0
#include "kamerton/objective/preference_loss.h"

#include <cmath>
#include <numbers>

#include <ATen/ATen.h>

#include "kamerton/core/error.h"

namespace kamerton::objective {
namespace {

/// -log sigmoid(x)
at::Tensor nll(const at::Tensor& x) {
  return -at::log_sigmoid(x);
}

/// The answer's score under a divergence: f'(t) of the density ratio t, log t given (Wang et al.
/// 2023).
at::Tensor divergence_score(const ObjectiveConfig& config, const at::Tensor& log_ratio) {
  if (config.f_divergence == "forward_kl") {
    return 1 - at::exp(-log_ratio);
  }
  if (config.f_divergence == "js") {
    return std::numbers::ln2 + at::log_sigmoid(log_ratio);
  }
  if (config.f_divergence == "alpha" && std::abs(config.f_alpha - 1.0) > 1e-6) {
    const double power = config.f_alpha - 1.0;
    return (at::exp(at::clamp_max(log_ratio * power, 80.0)) - 1.0) / power;  // fp32 holds e^80
  }
  return log_ratio;
}

/// What DPO's losses are written in.
struct Ratios {
  Ratios(const ObjectiveConfig& config, const PairLogProbs& pairs)
      : chosen(pairs.chosen_P - pairs.ref_chosen_P),
        rejected(pairs.rejected_P - pairs.ref_rejected_P),
        chosen_score(divergence_score(config, chosen)),
        rejected_score(divergence_score(config, rejected)),
        delta(chosen_score - rejected_score) {}

  /// Scores averaged over tokens.
  at::Tensor average_delta(const PairLogProbs& pairs) const {
    return chosen_score / at::clamp_min(pairs.chosen_tokens_P, 1) -
           rejected_score / at::clamp_min(pairs.rejected_tokens_P, 1);
  }

  at::Tensor chosen, rejected, chosen_score, rejected_score, delta;
};

at::Tensor smoothed(const at::Tensor& x, double smoothing) {
  return nll(x) * (1 - smoothing) + nll(-x) * smoothing;
}

at::Tensor sorted(const at::Tensor& values) {
  return std::get<0>(at::sort(values, /*stable=*/true, 0, false));
}

at::Tensor exo_pair(const at::Tensor& logits, double smoothing) {
  return at::sigmoid(logits) * (at::log_sigmoid(logits) - std::log1p(-smoothing)) +
         at::sigmoid(-logits) * (at::log_sigmoid(-logits) - std::log(smoothing));
}

at::Tensor discopop(const at::Tensor& logits, double tau) {
  const at::Tensor mix = at::sigmoid(logits / tau);
  return nll(logits) * (1 - mix) + at::exp(-logits) * mix;
}

at::Tensor unknown(const std::string& name) {
  throw core::Error(core::ErrorKind::Internal,
                    {.where = "objective.preference_loss", .what = "no such loss", .got = name});
}

/// The losses of a pair's score difference.
at::Tensor paired_loss(const std::string& name,
                       const ObjectiveConfig& config,
                       const PairLogProbs& pairs,
                       const Ratios& r) {
  const double beta = config.beta;
  const double smoothing = config.label_smoothing;
  if (name == "sigmoid") {
    return nll(beta * r.delta);
  }
  if (name == "cdpo") {
    return smoothed(beta * r.delta, smoothing);
  }
  if (name == "robust") {
    return (nll(beta * r.delta) * (1 - smoothing) - nll(-beta * r.delta) * smoothing) /
           (1 - 2 * smoothing);
  }
  if (name == "hinge") {
    return at::relu(1 - beta * r.delta);
  }
  if (name == "ipo") {
    return at::square(r.average_delta(pairs) - 1 / (2 * beta));
  }
  if (name == "sigmoid_norm") {
    return nll(beta * r.average_delta(pairs));
  }
  if (name == "exo_pair") {
    return exo_pair(beta * r.delta, smoothing);
  }
  if (name == "discopop") {
    return discopop(beta * r.delta, config.discopop_tau);
  }
  if (name == "aot") {
    return smoothed(beta * (sorted(pairs.chosen_P - pairs.rejected_P) -
                            sorted(pairs.ref_chosen_P - pairs.ref_rejected_P)),
                    smoothing);
  }
  if (name == "aot_unpaired") {
    return smoothed(beta * (sorted(r.chosen) - sorted(r.rejected)), smoothing);
  }
  return {};
}

/// The losses that judge each answer by itself.
at::Tensor answer_loss(const std::string& name, const ObjectiveConfig& config, const Ratios& r) {
  const double beta = config.beta;
  if (name == "nca_pair") {
    return nll(beta * r.chosen) + 0.5 * nll(-beta * r.chosen) + 0.5 * nll(-beta * r.rejected);
  }
  if (name == "bco_pair") {
    return nll(beta * r.chosen) + nll(-beta * r.rejected);
  }
  if (name == "sppo_hard") {
    return at::square(r.chosen - 0.5 / beta) + at::square(r.rejected + 0.5 / beta);
  }
  if (name == "apo_zero") {
    return 1 - at::sigmoid(beta * r.chosen) + at::sigmoid(beta * r.rejected);
  }
  if (name == "apo_down") {
    return at::sigmoid(beta * r.chosen) + 1 - at::sigmoid(beta * (r.chosen - r.rejected));
  }
  return unknown(name);
}

double weight_of(const ObjectiveConfig& config, size_t i) {
  return config.loss_weights.empty() ? 1.0 : config.loss_weights[i];
}

const std::string& only_loss(const ObjectiveConfig& config) {
  static const std::string sigmoid = "sigmoid";
  return config.loss.empty() ? sigmoid : config.loss.front();
}

/// CPO's ipo and simpo, and ORPO, look at the mean over an answer's tokens.
bool averages(const ObjectiveConfig& config) {
  return config.method == "orpo" ||
         (config.method == "cpo" && (only_loss(config) == "ipo" || only_loss(config) == "simpo"));
}

/// AlphaPO's reward (1 - p^-alpha) / alpha; its limit at 0 is log p.
at::Tensor alpha_reward(const at::Tensor& log_p, double alpha) {
  return alpha == 0.0 ? log_p : (1 - at::exp(-alpha * log_p)) / alpha;
}

/// log(1 - e^x), x < 0, exact near 0 and far from it (Maechler 2012).
at::Tensor log1mexp(const at::Tensor& x) {
  const at::Tensor negative = at::clamp_max(x, -1e-7);
  return at::where(
      negative > -std::numbers::ln2, at::log(-at::expm1(negative)), at::log1p(-at::exp(negative)));
}

}  // namespace

std::pair<at::Tensor, at::Tensor> answer_log_probs(const ObjectiveConfig& config,
                                                   const PairLogProbs& pairs) {
  if (!averages(config)) {
    return {pairs.chosen_P, pairs.rejected_P};
  }
  return {pairs.chosen_P / at::clamp_min(pairs.chosen_tokens_P, 1),
          pairs.rejected_P / at::clamp_min(pairs.rejected_tokens_P, 1)};
}

at::Tensor dpo_losses(const ObjectiveConfig& config, const PairLogProbs& pairs) {
  const Ratios ratios(config, pairs);
  at::Tensor total = at::zeros_like(ratios.delta);
  const size_t count = std::max<size_t>(config.loss.size(), 1);
  for (size_t i = 0; i < count; ++i) {
    const std::string name = config.loss.empty() ? "sigmoid" : config.loss[i];
    if (name == "sft") {
      continue;
    }
    at::Tensor loss = paired_loss(name, config, pairs, ratios);
    if (!loss.defined()) {
      loss = answer_loss(name, config, ratios);
    }
    total = total + weight_of(config, i) * loss;
  }
  return total;
}

at::Tensor cpo_losses(const ObjectiveConfig& config, const PairLogProbs& pairs) {
  const auto [chosen, rejected] = answer_log_probs(config, pairs);
  const double beta = config.beta;
  const at::Tensor logits =
      alpha_reward(chosen, config.alphapo_alpha) - alpha_reward(rejected, config.alphapo_alpha);
  const std::string& name = only_loss(config);
  if (name == "sigmoid") {
    return smoothed(beta * logits, config.label_smoothing);
  }
  if (name == "simpo") {
    return smoothed(beta * logits - config.simpo_gamma, config.label_smoothing);
  }
  if (name == "hinge") {
    return at::relu(1 - beta * logits);
  }
  if (name == "ipo") {
    return at::square(logits - 1 / (2 * beta));
  }
  return unknown(name);
}

at::Tensor orpo_losses(const ObjectiveConfig& config, const PairLogProbs& pairs) {
  const auto [chosen, rejected] = answer_log_probs(config, pairs);
  return config.beta * nll(chosen - rejected - (log1mexp(chosen) - log1mexp(rejected)));
}

at::Tensor pair_losses(const ObjectiveConfig& config, const PairLogProbs& pairs) {
  if (config.method == "cpo") {
    return cpo_losses(config, pairs);
  }
  return config.method == "orpo" ? orpo_losses(config, pairs) : dpo_losses(config, pairs);
}

double likelihood_weight(const ObjectiveConfig& config) {
  if (config.method == "orpo") {
    return 1.0;
  }
  if (config.method == "cpo") {
    return config.cpo_alpha;
  }
  double weight = 0;
  for (size_t i = 0; i < config.loss.size(); ++i) {
    weight += config.loss[i] == "sft" ? weight_of(config, i) : 0.0;
  }
  return weight;
}

std::pair<at::Tensor, at::Tensor> implicit_rewards(const ObjectiveConfig& config,
                                                   const PairLogProbs& pairs) {
  if (config.method == "dpo") {
    return {(config.beta * (pairs.chosen_P - pairs.ref_chosen_P)).detach(),
            (config.beta * (pairs.rejected_P - pairs.ref_rejected_P)).detach()};
  }
  const auto [chosen, rejected] = answer_log_probs(config, pairs);
  return {(config.beta * alpha_reward(chosen, config.alphapo_alpha)).detach(),
          (config.beta * alpha_reward(rejected, config.alphapo_alpha)).detach()};
}

}  // namespace kamerton::objective
