// SPDX-License-Identifier: Apache-2.0
// The `objective:` section of a configuration: what is minimised.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace kamerton::config {
class Fields;
}

namespace kamerton::objective {

/// Everything below `method` belongs to comparing answers. Names and defaults are TRL's (DPOConfig,
/// CPOConfig, ORPOConfig), so that a setting can be carried over.
struct ObjectiveConfig {
  std::string method = "sft";             ///< sft | dpo | cpo | orpo
  std::vector<std::string> loss = {};     ///< empty: sigmoid
  std::vector<double> loss_weights = {};  ///< empty: 1 each
  double beta = 0.1;
  double label_smoothing = 0.0;
  std::string f_divergence = "reverse_kl";  ///< reverse_kl | forward_kl | js | alpha
  double f_alpha = 1.0;                     ///< of the alpha divergence
  std::optional<double> ld_alpha =
      std::nullopt;  ///< LD-DPO: weight of tokens beyond the shorter answer
  double discopop_tau = 0.05;
  double simpo_gamma = 0.5;
  double cpo_alpha = 1.0;      ///< weight of the likelihood of the better answer
  double alphapo_alpha = 0.0;  ///< AlphaPO: 0 is the logarithm
  std::optional<std::string> reference =
      std::nullopt;  ///< another model's folder; absent: the start model
};

void describe(config::Fields& fields, ObjectiveConfig& config);

/// Throws ErrorKind::Config: losses that are unknown for the method, weights that do not match
/// them, settings that have no effect with the chosen losses or contradict each other.
void validate(const ObjectiveConfig& config);

/// Whether the data are pairs of answers.
bool compares_answers(const ObjectiveConfig& config);
/// Whether the losses compare with a reference model.
bool needs_reference(const ObjectiveConfig& config);

}  // namespace kamerton::objective
