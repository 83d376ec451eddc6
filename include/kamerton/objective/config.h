// SPDX-License-Identifier: Apache-2.0
// The `objective:` section of a configuration: what is minimised.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "kamerton/data/config.h"
#include "kamerton/objective/rollout_config.h"

namespace kamerton::config {
class Fields;
}

namespace kamerton::objective {

/// Learning from a larger model's distributions.
struct DistillConfig {
  std::string teacher;       ///< its folder
  double beta = 0.0;         ///< 0: KL(teacher | student); 1: KL(student | teacher); between: JSD
  double temperature = 1.0;  ///< divides both models' logits
  double alpha = 1.0;        ///< weight of the divergence; 1 - alpha is that of the likelihood
  int64_t top_k = 0;         ///< tokens of the teacher that are looked at; 0: all
  bool precompute = false;   ///< the teacher's top_k computed ahead and stored
};

/// Everything below `method` belongs to comparing answers. Names and defaults are TRL's (DPOConfig,
/// CPOConfig, ORPOConfig, KTOConfig, RewardConfig), so that a setting can be carried over.
struct ObjectiveConfig {
  std::string method = "sft";             ///< see methods() in config.cpp
  std::vector<std::string> loss = {};     ///< empty: the method's first
  std::vector<double> loss_weights = {};  ///< empty: 1 each
  double beta = 0.1;
  double label_smoothing = 0.0;
  std::string f_divergence = "reverse_kl";  ///< reverse_kl | forward_kl | js | alpha
  double f_alpha = 1.0;                     ///< of the alpha divergence
  std::optional<double> ld_alpha =
      std::nullopt;        ///< LD-DPO: weight of tokens beyond the shorter answer
  bool weighting = false;  ///< WPO: pairs count by how likely the model would say them
  double discopop_tau = 0.05;
  double simpo_gamma = 0.5;
  double cpo_alpha = 1.0;           ///< weight of the likelihood of the better answer
  double alphapo_alpha = 0.0;       ///< AlphaPO: 0 is the logarithm
  double desirable_weight = 1.0;    ///< KTO: of good answers
  double undesirable_weight = 1.0;  ///< KTO: of bad ones
  double center_rewards = 0.0;      ///< reward models: weight of (sum of a pair's rewards)^2
  std::optional<std::string> reference =
      std::nullopt;  ///< another model's folder; absent: the start model
  bool precompute_reference = false;
  DistillConfig distill = {};
  RolloutConfig rollout = {};
  PolicyConfig policy = {};
  std::vector<RewardConfig> rewards = {};
};

void describe(config::Fields& fields, DistillConfig& config);
void describe(config::Fields& fields, ObjectiveConfig& config);

/// Throws ErrorKind::Config: losses that are unknown for the method, weights that do not match
/// them, settings that have no effect with the chosen losses or contradict each other.
void validate(const ObjectiveConfig& config);

/// What the method does with the answers of the data.
data::Answers answers_of(const ObjectiveConfig& config);
/// Whether the data are pairs of answers.
bool compares_answers(const ObjectiveConfig& config);
/// Whether the losses compare with a reference model.
bool needs_reference(const ObjectiveConfig& config);
/// Whether the model generates what it learns from.
bool generates(const ObjectiveConfig& config);
/// Whether the model gives a score instead of tokens.
bool scores(const ObjectiveConfig& config);
/// Whether held-out data are measured by the objective itself, not by the likelihood of tokens.
bool evaluates_itself(const ObjectiveConfig& config);

}  // namespace kamerton::objective
