// SPDX-License-Identifier: Apache-2.0
#include "kamerton/objective/rollout_config.h"

#include <fmt/format.h>

#include "kamerton/config/field.h"
#include "kamerton/core/error.h"
#include "kamerton/objective/config.h"

namespace kamerton::objective {
namespace {

[[noreturn]] void refuse_rollout(const std::string& what,
                                 const std::string& got,
                                 const std::string& allowed,
                                 const std::string& hint = {}) {
  throw core::Error(
      core::ErrorKind::Config,
      {.where = "objective.config", .what = what, .got = got, .allowed = allowed, .hint = hint});
}

void validate_reward(const RewardConfig& reward) {
  const auto needs = [&](const char* kind, bool given, const char* key) {
    if (reward.kind == kind && !given) {
      refuse_rollout(fmt::format("a reward of kind {} needs {}", kind, key), "nothing", key);
    }
  };
  needs("match", !reward.pattern.empty(), "pattern");
  needs("json_keys", !reward.keys.empty(), "keys");
  needs("json_schema", !reward.schema.empty(), "schema");
  needs("model", !reward.model.empty(), "model");
  needs("program", !reward.command.empty(), "command");
}

void validate_grpo(const ObjectiveConfig& config) {
  if (config.policy.advantages != "batch" && config.rollout.samples < 2) {
    refuse_rollout("objective.policy.advantages compares the answers to a prompt, and there is one",
                   fmt::format("rollout.samples {} with advantages {}",
                               config.rollout.samples,
                               config.policy.advantages),
                   "2 or more samples",
                   "objective.method: ppo learns from single answers");
  }
  const bool once = config.rollout.epochs == 1 && config.rollout.mini_batches == 1;
  if (once && config.policy.delta.has_value()) {
    refuse_rollout("objective.policy.delta bounds a ratio that is always 1",
                   "one update a step",
                   "rollout.epochs or rollout.mini_batches above 1");
  }
}

}  // namespace

void describe(config::Fields& f, RolloutConfig& c) {
  f.knob("samples",
         c.samples,
         {.text = "answers that are generated to each prompt",
          .cost = "generation and training grow with it",
          .min = 1,
          .max = 4096});
  f.knob("max_new_tokens",
         c.max_new_tokens,
         {.text = "length at which an answer is cut off", .unit = "tokens", .min = 1});
  f.knob("temperature",
         c.temperature,
         {.text = "of sampling, and of all log-probabilities that are learned from",
          .min = 0,
          .min_exclusive = true});
  f.knob("top_k", c.top_k, {.text = "sample from so many tokens; 0: all", .min = 0});
  f.knob("top_p",
         c.top_p,
         {.text = "sample from the most likely tokens that have this probability together",
          .min = 0,
          .max = 1,
          .min_exclusive = true});
  f.knob("epochs",
         c.epochs,
         {.text = "passes over the answers of a step", .cost = "training time", .min = 1});
  f.knob("mini_batches",
         c.mini_batches,
         {.text = "updates a pass, each of an equal share of the micro-batches", .min = 1});
  f.knob("mask_truncated",
         c.mask_truncated,
         {.text = "do not learn from answers that were cut off (DAPO, arXiv 2503.14476)"});
  f.knob("missing_end_penalty",
         c.missing_end_penalty,
         {.text = "taken from the reward of an answer that was cut off", .min = 0});
}

void describe(config::Fields& f, PolicyConfig& c) {
  f.knob(
      "advantages",
      c.advantages,
      {.text = "grpo: an answer's reward less the mean of its prompt's answers, divided by their "
               "deviation (group), by that of all answers (batch) or not at all (none: Dr. "
               "GRPO); rloo: less the mean of the others (arXiv 2402.14740), rloo_normalized: "
               "whitened over all answers",
       .choices = {"group", "batch", "none", "rloo", "rloo_normalized"}});
  f.knob("clip",
         c.clip,
         {.text = "the ratio of new to old probability counts down to 1 - clip", .min = 0});
  f.knob("clip_high",
         c.clip_high,
         {.text = "and up to 1 + clip_high; none: as clip (cispo: 5)", .min = 0});
  f.knob("delta",
         c.delta,
         {.text = "an upper bound of the ratio itself (arXiv 2505.07291)", .min = 1});
  f.knob("ratio",
         c.ratio,
         {.text = "of tokens, or one a sequence (GSPO, arXiv 2507.18071)",
          .choices = {"token", "sequence"}});
  f.knob("kl_coef",
         c.kl_coef,
         {.text = "weight of the divergence from the reference model: grpo in the loss, ppo in the "
                  "reward of each token",
          .cost = "above 0 a forward pass of the reference",
          .min = 0});
  f.knob("kl_estimator",
         c.kl_estimator,
         {.text = "of the divergence: k1 is log p - log p_ref, k2 half its square, k3 the unbiased "
                  "positive one (Schulman 2020)",
          .choices = {"k3", "k1", "k2"}});
  f.knob("kl_bias_correction",
         c.kl_bias_correction,
         {.text = "grpo: weight the divergence with the ratio (DeepSeek V3.2)"});
  f.knob("kl_target",
         c.kl_target,
         {.text = "divergence that kl_coef is steered towards (arXiv 1909.08593); none: kl_coef "
                  "stays",
          .min = 0,
          .min_exclusive = true});
  f.knob("kl_horizon",
         c.kl_horizon,
         {.text = "how slowly kl_coef follows", .unit = "answers", .min = 1});
  f.knob("gamma", c.gamma, {.text = "ppo: discount of rewards, a token", .min = 0, .max = 1});
  f.knob(
      "lambda",
      c.lambda,
      {.text = "ppo: of generalised advantage estimation (arXiv 1506.02438)", .min = 0, .max = 1});
  f.knob("value_coef", c.value_coef, {.text = "ppo: weight of the value head's loss", .min = 0});
  f.knob("value_clip",
         c.value_clip,
         {.text = "ppo: how far a value may move from the one at generation", .min = 0});
}

void describe(config::Fields& f, RewardConfig& c) {
  f.knob("kind",
         c.kind,
         {.text = "what judges: match (a regular expression is found in the answer), equals (the "
                  "record's completion or answer, blanks at the ends aside), json_keys (a JSON "
                  "object with these keys), json_schema, model (a reward model), program (your "
                  "executable)",
          .choices = {"match", "equals", "json_keys", "json_schema", "model", "program"}});
  f.knob("weight", c.weight, {.text = "factor of its reward in the sum"});
  f.knob("pattern", c.pattern, {.text = "match: 1 when it is found, else 0"});
  f.knob("keys", c.keys, {.text = "json_keys: 1 when all are there, else 0"});
  f.knob(
      "schema", c.schema, {.text = "json_schema: file with the schema; 1 when it is met, else 0"});
  f.knob("model",
         c.model,
         {.text = "model: folder of a sequence-classification model with one label",
          .cost = "a second model in memory"});
  f.knob("command",
         c.command,
         {.text = "program: executable and arguments; it reads a line of JSON an answer (prompt, "
                  "completion, reference, id) and writes one ({\"id\": ..., \"reward\": number})",
          .cost = "one process a rank"});
  f.knob("timeout_s",
         c.timeout_s,
         {.text = "program: how long it may take for the answers of a rank in one step",
          .unit = "seconds",
          .min = 0,
          .min_exclusive = true});
}

void validate_generation(const ObjectiveConfig& config) {
  if (config.rewards.empty()) {
    refuse_rollout("a method that generates needs something that judges the answers",
                   "no objective.rewards",
                   "one reward at least",
                   "objective.rewards: [{kind: match, pattern: ...}]");
  }
  for (const RewardConfig& reward : config.rewards) {
    validate_reward(reward);
  }
  if (config.policy.kl_target.has_value() && config.policy.kl_coef <= 0) {
    refuse_rollout("objective.policy.kl_target steers kl_coef, which is off",
                   "kl_coef 0",
                   "kl_coef above 0 to start from");
  }
  if (config.method == "grpo") {
    validate_grpo(config);
  }
}

}  // namespace kamerton::objective
