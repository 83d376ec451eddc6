// SPDX-License-Identifier: Apache-2.0
#include "kamerton/objective/config.h"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "kamerton/config/field.h"
#include "kamerton/core/error.h"

namespace kamerton::objective {
namespace {

using core::Error;
using core::ErrorKind;
using Names = std::vector<std::string>;

const Names& losses_of(const std::string& method) {
  static const Names dpo = {"sigmoid",
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
                            "sft"};
  static const Names cpo = {"sigmoid", "hinge", "ipo", "simpo"};
  static const Names orpo = {};
  if (method == "cpo") {
    return cpo;
  }
  return method == "orpo" ? orpo : dpo;
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
  const Names& known = losses_of(config.method);
  for (const std::string& name : config.loss) {
    if (!has(known, name)) {
      refuse(fmt::format("objective.loss is not known to method {}", config.method),
             "'" + name + "'",
             known.empty() ? "no loss: this method has one"
                           : fmt::format("{}", fmt::join(known, ", ")));
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

}  // namespace

void describe(config::Fields& f, ObjectiveConfig& c) {
  f.knob(
      "method",
      c.method,
      {.text = "sft: likelihood of the trained tokens; dpo, cpo (with simpo) and orpo: pairs of a "
               "better and a worse answer, dpo beside a reference model",
       .cost = "dpo: a second forward pass, of the reference",
       .choices = {"sft", "dpo", "cpo", "orpo"}});
  f.knob(
      "loss",
      c.loss,
      {.text = "dpo: any of sigmoid, cdpo, hinge, ipo, sigmoid_norm, exo_pair, nca_pair, robust, "
               "bco_pair, sppo_hard, aot, aot_unpaired, apo_zero, apo_down, discopop, sft, added "
               "up; cpo: one of sigmoid, hinge, ipo, simpo; empty: sigmoid"});
  f.knob("loss_weights", c.loss_weights, {.text = "a weight for each loss; empty: 1"});
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
  f.knob("reference",
         c.reference,
         {.text = "folder of the reference model; none: the model that the run starts from",
          .cost = "a second model in memory; none with method lora: the adapter is switched off "
                  "instead"});
}

void validate(const ObjectiveConfig& config) {
  if (!compares_answers(config)) {
    if (!config.loss.empty() || config.reference.has_value()) {
      refuse("objective.loss and objective.reference belong to comparing answers",
             "method " + config.method,
             "dpo, cpo, orpo");
    }
    return;
  }
  validate_losses(config);
  validate_smoothing(config);
  if (config.method != "dpo" && (config.reference.has_value() || config.ld_alpha.has_value() ||
                                 config.f_divergence != "reverse_kl")) {
    refuse("reference, ld_alpha and f_divergence belong to method dpo",
           "method " + config.method,
           "dpo");
  }
}

bool compares_answers(const ObjectiveConfig& config) {
  return config.method != "sft";
}

bool needs_reference(const ObjectiveConfig& config) {
  return config.method == "dpo";
}

}  // namespace kamerton::objective
