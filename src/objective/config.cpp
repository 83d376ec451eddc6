// SPDX-License-Identifier: Apache-2.0
#include "kamerton/objective/config.h"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "kamerton/config/field.h"
#include "kamerton/config/load.h"
#include "kamerton/core/error.h"

namespace kamerton::objective {
namespace {

using core::Error;
using core::ErrorKind;
using Names = std::vector<std::string>;

/// What sets a method apart before anything is computed.
struct Method {
  std::string name;
  data::Answers answers;
  bool reference;  ///< compares with a reference model
  Names losses;    ///< the first is the default
};

const std::vector<Method>& methods() {
  using data::Answers;
  static const std::vector<Method> all = {
      {"sft", Answers::One, false, {}},
      {"dpo",
       Answers::Pair,
       true,
       {"sigmoid",
        "cdpo",
        "hinge",
        "ipo",
        "sigmoid_norm",
        "exo_pair",
        "nca_pair",
        "robust",
        "bco_pair",
        "sppo_hard",
        "aot",
        "aot_unpaired",
        "apo_zero",
        "apo_down",
        "discopop",
        "sft"}},
      {"cpo", Answers::Pair, false, {"sigmoid", "hinge", "ipo", "simpo"}},
      {"orpo", Answers::Pair, false, {}},
      {"kto", Answers::Judged, true, {"kto", "apo_zero_unpaired"}},
      {"reward", Answers::Pair, false, {}},
      {"process_reward", Answers::Steps, false, {}},
      {"grpo",
       Answers::Asked,
       false,
       {"dapo", "grpo", "dr_grpo", "bnpo", "cispo", "sapo", "luspo", "vespo"}},
      {"ppo", Answers::Asked, false, {}},
      {"distill", Answers::One, false, {}}};
  return all;
}

const Method& method_of(const ObjectiveConfig& config) {
  for (const Method& method : methods()) {
    if (method.name == config.method) {
      return method;
    }
  }
  throw Error(ErrorKind::Internal,
              {.where = "objective.config", .what = "no such method", .got = config.method});
}

bool has(const Names& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

/// The losses that label_smoothing changes.
bool smooths(const ObjectiveConfig& config) {
  if (config.method == "cpo") {
    return config.loss.empty() || config.loss.front() == "sigmoid" ||
           config.loss.front() == "simpo";
  }
  return config.method == "dpo" &&
         std::any_of(config.loss.begin(), config.loss.end(), [](const std::string& name) {
           return has({"cdpo", "robust", "exo_pair", "aot", "aot_unpaired"}, name);
         });
}

[[noreturn]] void refuse(const std::string& what,
                         const std::string& got,
                         const std::string& allowed,
                         const std::string& hint = {}) {
  throw Error(
      ErrorKind::Config,
      {.where = "objective.config", .what = what, .got = got, .allowed = allowed, .hint = hint});
}

void validate_losses(const ObjectiveConfig& config) {
  const Names& known = method_of(config).losses;
  for (const std::string& name : config.loss) {
    if (!has(known, name)) {
      refuse(fmt::format("objective.loss is not known to method {}", config.method),
             "'" + name + "'",
             known.empty() ? "no loss: this method has one"
                           : fmt::format("{}", fmt::join(known, ", ")),
             config::nearest(name, {known.begin(), known.end()}));
    }
  }
  if (config.method != "dpo" && config.loss.size() > 1) {
    refuse("several losses are combined by method dpo only",
           fmt::format("{}", fmt::join(config.loss, ", ")),
           "one");
  }
  if (!config.loss_weights.empty() && config.loss_weights.size() != config.loss.size()) {
    refuse("objective.loss_weights does not match objective.loss",
           fmt::format("{} weights", config.loss_weights.size()),
           fmt::format("{}, one a loss", config.loss.size()));
  }
  if (config.method == "dpo" && config.loss == Names{"sft"}) {
    refuse("objective.loss is the better answers' likelihood alone",
           "sft",
           "at least one loss that compares",
           "method sft trains on answers");
  }
}

void validate_smoothing(const ObjectiveConfig& config) {
  if (config.label_smoothing > 0 && !smooths(config)) {
    refuse("objective.label_smoothing has no effect on the chosen loss",
           fmt::format(
               "{} with {}",
               config.label_smoothing,
               config.loss.empty() ? "sigmoid" : fmt::format("{}", fmt::join(config.loss, ", "))),
           "cdpo, robust, exo_pair, aot, aot_unpaired; cpo's sigmoid and simpo",
           "objective.loss: [cdpo] is the smoothed sigmoid");
  }
  if (has(config.loss, "robust") && config.label_smoothing >= 0.5) {
    refuse("robust divides by 1 - 2 label_smoothing",
           fmt::format("{}", config.label_smoothing),
           "less than 0.5");
  }
  if (has(config.loss, "exo_pair") && config.label_smoothing <= 0) {
    refuse("exo_pair takes the logarithm of label_smoothing",
           fmt::format("{}", config.label_smoothing),
           "more than 0",
           "1e-3 is usual");
  }
}

void validate_reference(const ObjectiveConfig& config, const Method& method) {
  if (config.reference.has_value() && !needs_reference(config)) {
    refuse("objective.reference is a model that this method does not compare with",
           "method " + config.method,
           generates(config) ? "objective.policy.kl_coef above 0"
                             : "method dpo, kto, or grpo and ppo with kl_coef");
  }
  if (config.precompute_reference && !method.reference) {
    refuse("objective.precompute_reference stores log-probabilities of the data's answers",
           "method " + config.method,
           "method dpo, kto");
  }
  if (config.method != "dpo" &&
      (config.ld_alpha.has_value() || config.f_divergence != "reverse_kl")) {
    refuse("ld_alpha and f_divergence belong to method dpo", "method " + config.method, "dpo");
  }
}

void validate_distill(const DistillConfig& config) {
  if (config.teacher.empty()) {
    refuse("method distill needs a teacher", "no objective.distill.teacher", "a model's folder");
  }
  if (config.precompute && config.top_k == 0) {
    refuse("objective.distill.precompute stores the teacher's likeliest tokens",
           "top_k 0: all of them",
           "top_k above 0",
           "objective.distill.top_k: 64");
  }
}

void describe_comparison(config::Fields& f, ObjectiveConfig& c) {
  f.knob(
      "beta",
      c.beta,
      {.text = "how strongly differences count: small stays close to the reference less strictly",
       .min = 0,
       .min_exclusive = true});
  f.knob(
      "label_smoothing",
      c.label_smoothing,
      {.text = "share of pairs that may be labelled the wrong way round", .min = 0, .max = 0.999});
  f.knob("f_divergence",
         c.f_divergence,
         {.text = "divergence from the reference (arXiv 2309.16240)",
          .choices = {"reverse_kl", "forward_kl", "js", "alpha"}});
  f.knob("f_alpha", c.f_alpha, {.text = "order of the alpha divergence; 1 is reverse_kl"});
  f.knob("ld_alpha",
         c.ld_alpha,
         {.text = "LD-DPO: weight of an answer's tokens beyond the length of the shorter answer",
          .min = 0,
          .max = 1});
  f.knob("weighting",
         c.weighting,
         {.text = "WPO: a pair counts by how likely the model itself would say its answers (arXiv "
                  "2406.11827)",
          .cost = "one more pass over the output head"});
  f.knob("discopop_tau",
         c.discopop_tau,
         {.text = "temperature of discopop's blend", .min = 0, .min_exclusive = true});
  f.knob("simpo_gamma", c.simpo_gamma, {.text = "margin that simpo asks for", .min = 0});
  f.knob(
      "cpo_alpha",
      c.cpo_alpha,
      {.text = "cpo: weight of the likelihood of the better answers; 0 for SimPO alone", .min = 0});
  f.knob("alphapo_alpha",
         c.alphapo_alpha,
         {.text = "cpo: AlphaPO's reward (1 - p^-alpha) / alpha; 0: log p"});
  f.knob("desirable_weight", c.desirable_weight, {.text = "kto: weight of good answers", .min = 0});
  f.knob(
      "undesirable_weight",
      c.undesirable_weight,
      {.text = "kto: weight of bad answers; weights times counts of good and bad should be alike",
       .min = 0});
  f.knob(
      "center_rewards",
      c.center_rewards,
      {.text = "reward: weight of the squared sum of a pair's rewards, which keeps them around 0 "
               "(arXiv 2312.09244)",
       .min = 0});
}

}  // namespace

void describe(config::Fields& f, DistillConfig& c) {
  f.knob("teacher",
         c.teacher,
         {.text = "folder of the teacher, a model with the same tokenizer",
          .cost = "a second model in memory; none with precompute once its numbers are stored"});
  f.knob("beta",
         c.beta,
         {.text = "0: KL(teacher || student), 1: KL(student || teacher), between: the generalised "
                  "Jensen-Shannon divergence (arXiv 2306.13649)",
          .min = 0,
          .max = 1});
  f.knob("temperature",
         c.temperature,
         {.text = "divides the logits of both models", .min = 0, .min_exclusive = true});
  f.knob("alpha",
         c.alpha,
         {.text = "weight of the divergence; the rest is that of the likelihood of the data",
          .min = 0,
          .max = 1});
  f.knob("top_k",
         c.top_k,
         {.text = "compare the teacher's so many likeliest tokens, and all others as one; 0: every "
                  "token",
          .min = 0});
  f.knob("precompute",
         c.precompute,
         {.text = "compute the teacher's top_k ahead and store them in data.store_dir",
          .cost = "disk: targets x top_k x 8 bytes"});
}

void describe(config::Fields& f, ObjectiveConfig& c) {
  f.knob(
      "method",
      c.method,
      {.text = "sft: likelihood of the trained tokens; dpo, cpo (with simpo) and orpo: pairs of a "
               "better and a worse answer, dpo beside a reference model; kto: answers called good "
               "or bad; reward: a model that scores answers, from pairs; process_reward: one that "
               "scores their steps; grpo, ppo: answers that "
               "the model generates and objective.rewards judge; distill: a larger model's "
               "distributions",
       .cost = "dpo, kto: a second forward pass, of the reference; grpo, ppo: generation",
       .choices = {"sft",
                   "dpo",
                   "cpo",
                   "orpo",
                   "kto",
                   "reward",
                   "process_reward",
                   "grpo",
                   "ppo",
                   "distill"}});
  f.knob("loss",
         c.loss,
         {.text =
              "dpo: any of sigmoid, cdpo, hinge, ipo, sigmoid_norm, exo_pair, nca_pair, robust, "
              "bco_pair, sppo_hard, aot, aot_unpaired, apo_zero, apo_down, discopop, sft, added "
              "up; cpo: one of sigmoid, hinge, ipo, simpo; kto: kto or apo_zero_unpaired; grpo: "
              "dapo, grpo, dr_grpo, bnpo, cispo, sapo, luspo or vespo; empty: the first of these"});
  f.knob("loss_weights", c.loss_weights, {.text = "a weight for each loss; empty: 1"});
  describe_comparison(f, c);
  f.knob("reference",
         c.reference,
         {.text = "folder of the reference model; none: the model that the run starts from",
          .cost = "a second model in memory; none with method lora: the adapter is switched off "
                  "instead"});
  f.knob("precompute_reference",
         c.precompute_reference,
         {.text = "dpo, kto: compute the reference's log-probabilities of all examples ahead and "
                  "store them in data.store_dir; a run that finds them loads no reference model",
          .cost = "one pass over the data before the first step"});
  f.section("distill", c.distill, "Learning from a teacher (method: distill).");
  f.section("rollout", c.rollout, "Generating answers (methods: grpo, ppo).");
  f.section("policy", c.policy, "The loss on generated answers (methods: grpo, ppo).");
  f.list("rewards", c.rewards, "What judges generated answers; rewards are added up.");
}

void validate(const ObjectiveConfig& config) {
  const Method& method = method_of(config);
  validate_losses(config);
  validate_smoothing(config);
  validate_reference(config, method);
  if (config.weighting && config.method != "dpo") {
    refuse("objective.weighting is WPO's, which is dpo's", "method " + config.method, "dpo");
  }
  if (config.weighting &&
      (has(config.loss, "aot") || has(config.loss, "aot_unpaired") || has(config.loss, "sft"))) {
    refuse("objective.weighting weighs pairs, and this loss is no sum over pairs",
           fmt::format("{}", fmt::join(config.loss, ", ")),
           "losses other than aot, aot_unpaired and sft");
  }
  if (generates(config)) {
    validate_generation(config);
  } else if (!config.rewards.empty()) {
    refuse("objective.rewards judge generated answers", "method " + config.method, "grpo, ppo");
  }
  if (config.method == "distill") {
    validate_distill(config.distill);
  }
}

data::Answers answers_of(const ObjectiveConfig& config) {
  return method_of(config).answers;
}

bool compares_answers(const ObjectiveConfig& config) {
  return answers_of(config) == data::Answers::Pair;
}

bool needs_reference(const ObjectiveConfig& config) {
  return method_of(config).reference || (generates(config) && config.policy.kl_coef > 0);
}

bool generates(const ObjectiveConfig& config) {
  return answers_of(config) == data::Answers::Asked;
}

bool scores(const ObjectiveConfig& config) {
  return config.method == "reward" || config.method == "process_reward";
}

bool evaluates_itself(const ObjectiveConfig& config) {
  return config.method != "sft";
}

}  // namespace kamerton::objective
