// SPDX-License-Identifier: Apache-2.0
// The parts of `objective:` about learning from generated answers (GRPO, PPO).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace kamerton::config {
class Fields;
}

namespace kamerton::objective {

/// How answers are generated, and how often they are learned from.
struct RolloutConfig {
  int64_t samples = 8;  ///< answers to a prompt (GRPO: the group)
  int64_t max_new_tokens = 128;
  double temperature = 1.0;  ///< also divides the logits of all log-probabilities
  int64_t top_k = 0;
  double top_p = 1.0;
  int64_t epochs = 1;              ///< passes over the answers of a step
  int64_t mini_batches = 1;        ///< updates a pass
  bool mask_truncated = false;     ///< answers that do not end in time are not learned from
  double missing_end_penalty = 0;  ///< taken from the reward of an answer that does not end in time
};

/// The loss of a policy; TRL's GRPOConfig, and PPO's names.
struct PolicyConfig {
  std::string advantages = "group";  ///< group | batch | none | rloo | rloo_normalized
  double clip = 0.2;                 ///< the ratio stays above 1 - clip
  std::optional<double> clip_high = std::nullopt;  ///< and below 1 + clip_high; absent: as clip
  std::optional<double> delta = std::nullopt;  ///< two-sided clipping: an upper bound of the ratio
  std::string ratio = "token";                 ///< token | sequence (GSPO)
  double kl_coef = 0.0;                        ///< GRPO: in the loss; PPO: in the reward
  std::string kl_estimator = "k3";             ///< k1 | k2 | k3
  bool kl_bias_correction = false;             ///< the estimate is weighted with the ratio
  std::optional<double> kl_target = std::nullopt;  ///< kl_coef follows the measured divergence
  double kl_horizon = 10000;                       ///< answers over which it does so
  double gamma = 1.0;                              ///< PPO: discount a token
  double lambda = 0.95;                            ///< PPO: generalised advantage estimation
  double value_coef = 0.1;                         ///< PPO: weight of the value loss
  double value_clip = 0.2;                         ///< PPO: how far values may move in one step
};

/// One judge of an answer; rewards are added up with their weights.
struct RewardConfig {
  std::string kind = "match";  ///< match | equals | json_keys | json_schema | model | program
  double weight = 1.0;
  std::string pattern;               ///< match: a regular expression
  std::vector<std::string> keys;     ///< json_keys: that a JSON object must have
  std::string schema;                ///< json_schema: a file
  std::string model;                 ///< model: a folder with a sequence-classification head
  std::vector<std::string> command;  ///< program: the executable and its arguments
  double timeout_s = 30;             ///< program: for all answers of a step
};

void describe(config::Fields& fields, RolloutConfig& config);
void describe(config::Fields& fields, PolicyConfig& config);
void describe(config::Fields& fields, RewardConfig& config);

struct ObjectiveConfig;
/// Throws ErrorKind::Config for rewards, rollouts and policy of a method that generates.
void validate_generation(const ObjectiveConfig& config);

}  // namespace kamerton::objective
