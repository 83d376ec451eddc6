// SPDX-License-Identifier: Apache-2.0
// What does not go together, as a table: a condition, the two settings and the reason.
#include <set>
#include <vector>

#include <fmt/format.h>

#include "kamerton/core/error.h"
#include "kamerton/federation/config.h"

namespace kamerton::federation {
namespace {

using core::Error;
using core::ErrorKind;

struct Conflict {
  bool present;
  std::string what;
  std::string why;
  std::string hint;
};

void refuse_first(const std::vector<Conflict>& conflicts) {
  for (const Conflict& conflict : conflicts) {
    if (conflict.present) {
      throw Error(ErrorKind::Config,
                  {.where = "federation.config",
                   .what = conflict.what,
                   .got = conflict.why,
                   .hint = conflict.hint});
    }
  }
}

std::vector<Conflict> secure_conflicts(const FederationConfig& c, bool lora) {
  if (!c.privacy.secure_aggregation) {
    return {};
  }
  const bool single = c.robust.rule != "mean";
  return {
      {single,
       fmt::format("robust.rule {} does not go with privacy.secure_aggregation", c.robust.rule),
       "masked updates: the rule needs each site's update, the coordinator sees the sum alone",
       "robust.rule: mean"},
      {c.robust.norm_bound > 0,
       "robust.norm_bound does not go with privacy.secure_aggregation",
       "masked updates: the coordinator cannot measure one site's norm",
       "privacy.site_clip, which each site applies itself"},
      {lora && c.adapters != "ffa",
       fmt::format("adapters {} does not go with privacy.secure_aggregation", c.adapters),
       "masked updates: only a sum is revealed, and of LoRA only sums with a frozen A are exact",
       "adapters: ffa"},
      {c.update.encoding != "ring32",
       fmt::format("update.encoding {} does not go with privacy.secure_aggregation",
                   c.update.encoding),
       "masks live in a ring of integers",
       "update.encoding: ring32"},
      {c.cohort.min_sites < 3,
       "privacy.secure_aggregation needs cohort.min_sites of at least 3",
       fmt::format("min_sites {}: of two sites each learns the other's update by subtraction",
                   c.cohort.min_sites),
       "cohort.min_sites: 3"},
      {c.privacy.threshold != 0 && c.privacy.threshold < 3,
       "privacy.threshold is below 3",
       fmt::format("threshold {}", c.privacy.threshold),
       "privacy.threshold: 0 (two thirds of the cohort, plus one)"},
      {c.method == "scaffold",
       "method scaffold does not go with privacy.secure_aggregation",
       "control variates have no known range to be fixed-point numbers in",
       "method: fedavg or fedprox"}};
}

std::vector<Conflict> privacy_conflicts(const FederationConfig& c, bool lora) {
  const bool clips = c.privacy.site_clip > 0;
  return {{clips && sends_adapters(c, lora),
           fmt::format("privacy.site_clip does not go with adapters {}", c.adapters),
           "whole factors are sent, not differences that could be scaled down",
           "adapters: ffa"},
          {clips && c.method == "scaffold",
           "privacy.site_clip does not go with method scaffold",
           "control variates would tell what clipping hides",
           "method: fedavg or fedprox"}};
}

std::vector<Conflict> noise_conflicts(const FederationConfig& c) {
  if (c.privacy.site_noise == 0) {
    return {};
  }
  return {{c.privacy.site_clip == 0,
           "privacy.site_noise needs privacy.site_clip",
           "noise hides what is bounded",
           "privacy.site_clip: 1"},
          {c.privacy.site_epsilon == 0,
           "privacy.site_noise needs a budget",
           "privacy.site_epsilon is not set",
           "privacy.site_epsilon: 8"},
          {c.update.encoding != "ring32",
           fmt::format("privacy.site_noise does not go with update.encoding {}", c.update.encoding),
           "noise is drawn in whole steps: rounding of real numbers gives it away",
           "update.encoding: ring32"},
          {c.weights != "uniform",
           fmt::format("privacy.site_noise does not go with weights {}", c.weights),
           "a site's size would be told, and what noise hides would depend on it",
           "weights: uniform"},
          {c.cohort.size == 0,
           "privacy.site_noise needs cohort.size",
           "room for sum and noise is planned for so many sites",
           "cohort.size: the number of sites"},
          {c.eval_every > 0,
           "privacy.site_noise does not go with eval_every above 0",
           "exact losses of a site's held-out data would tell of the site",
           "eval_every: 0, and kamerton eval on data that are nobody's"}};
}

std::vector<Conflict> scaffold_conflicts(const FederationConfig& c, const TrainingFacts& t) {
  if (c.method != "scaffold") {
    return {};
  }
  const std::string why = "arXiv 1910.06378: the control variate divides by steps times one rate";
  return {{t.optimizer != "sgd" || t.momentum != 0,
           "method scaffold needs plain SGD at the sites",
           fmt::format("optim.algorithm {}, momentum {}", t.optimizer, t.momentum),
           "optim.algorithm: sgd and optim.momentum: 0"},
          {t.schedule != "constant" || t.warmup_steps != 0,
           "method scaffold needs a constant learning rate",
           fmt::format("optim.schedule {}, {} warm-up steps; {}", t.schedule, t.warmup_steps, why),
           "optim.schedule: constant and optim.warmup_steps: 0"},
          {c.weights != "uniform",
           fmt::format("method scaffold does not go with weights {}", c.weights),
           "its server step is the plain mean (arXiv 1910.06378)",
           "weights: uniform"},
          {c.robust.rule != "mean",
           fmt::format("method scaffold does not go with robust.rule {}", c.robust.rule),
           "its server step is a mean",
           "robust.rule: mean"},
          {c.update.encoding == "ring32" || c.update.encoding == "top_k",
           fmt::format("method scaffold does not go with update.encoding {}", c.update.encoding),
           "control variates must arrive whole",
           "update.encoding: f32 or bf16"},
          {t.lora && c.adapters != "ffa",
           fmt::format("method scaffold does not go with adapters {}", c.adapters),
           "control variates are sums over sites, which are exact with a frozen A only",
           "adapters: ffa"}};
}

std::vector<Conflict> adapter_conflicts(const FederationConfig& c, const TrainingFacts& t) {
  const bool whole = sends_adapters(c, t.lora);
  const bool plain = c.method == "fedavg" || c.method == "fedprox";
  return {{whole && !plain,
           fmt::format("method {} does not go with adapters {}", c.method, c.adapters),
           "the server's optimizer works on mean updates; here products of factors are summed",
           "method: fedavg or fedprox, or adapters: ffa"},
          {whole && c.robust.rule != "mean",
           fmt::format("robust.rule {} does not go with adapters {}", c.robust.rule, c.adapters),
           "factors of different sites cannot be compared coordinate by coordinate",
           "adapters: ffa"},
          {whole && c.robust.norm_bound > 0,
           fmt::format("robust.norm_bound does not go with adapters {}", c.adapters),
           "scaling both factors scales their product twice",
           "adapters: ffa"},
          {whole && c.update.encoding != "f32" && c.update.encoding != "bf16",
           fmt::format(
               "update.encoding {} does not go with adapters {}", c.update.encoding, c.adapters),
           "whole factors are sent, not small differences",
           "update.encoding: f32 or bf16"},
          {whole && !c.local.personal.empty(),
           fmt::format("local.personal does not go with adapters {}", c.adapters),
           "a product needs both of its factors",
           "adapters: ffa"},
          {t.lora && c.adapters == "stack" && c.local.optimizer_state == "keep",
           "local.optimizer_state keep does not go with adapters stack",
           "a site's adapter starts anew every round",
           "local.optimizer_state: reset"}};
}

std::vector<Conflict> method_conflicts(const FederationConfig& c) {
  const bool diloco = c.method == "diloco";
  return {{c.method == "fedprox" && c.local.proximal_mu <= 0,
           "method fedprox needs local.proximal_mu",
           "mu 0 is fedavg",
           "local.proximal_mu: 0.01"},
          {c.method != "fedprox" && c.local.proximal_mu > 0,
           fmt::format("local.proximal_mu does nothing with method {}", c.method),
           fmt::format("mu {}", c.local.proximal_mu),
           "method: fedprox"},
          {diloco && c.weights != "uniform",
           fmt::format("method diloco does not go with weights {}", c.weights),
           "its outer gradient is the plain mean (arXiv 2311.08105)",
           "weights: uniform"},
          {weighs_integers(c) && c.update.max_weight == 0,
           fmt::format("weights {} with update.encoding ring32 need update.max_weight", c.weights),
           "integers are summed as they come: they are weighted at the site, by a share of a bound",
           "update.max_weight: the most targets (or examples) of a site, or weights: uniform"},
          {!weighs_integers(c) && c.update.max_weight > 0,
           fmt::format("update.max_weight does nothing with update.encoding {} and weights {}",
                       c.update.encoding,
                       c.weights),
           "it bounds the weights of integers",
           "update.max_weight: 0"},
          {c.update.encoding == "ring32" && c.robust.norm_bound > 0,
           "robust.norm_bound does not go with update.encoding ring32",
           "integers are summed as they come",
           "privacy.site_clip, which each site applies itself"},
          {c.server.bias_correction && c.method != "fedadam",
           fmt::format("server.bias_correction does nothing with method {}", c.method),
           "it belongs to fedadam",
           "method: fedadam"},
          {c.robust.rule != "mean" && c.update.encoding == "top_k",
           fmt::format("robust.rule {} does not go with update.encoding top_k", c.robust.rule),
           "most coordinates of every update are zero, and so would be the result",
           "update.encoding: int8"},
          {c.robust.rule != "mean" && c.update.encoding == "ring32",
           fmt::format("robust.rule {} does not go with update.encoding ring32", c.robust.rule),
           "ring32 carries updates that are already weighted",
           "update.encoding: f32"}};
}

std::vector<Conflict> cohort_conflicts(const FederationConfig& c) {
  const int64_t f = c.robust.byzantine;
  const bool krum = c.robust.rule == "krum" || c.robust.rule == "multi_krum";
  const int64_t needed = krum ? 2 * f + 3 : (c.robust.rule == "trimmed_mean" ? 2 * f + 1 : 1);
  return {{c.cohort.min_sites < needed,
           fmt::format("robust.rule {} needs cohort.min_sites of {}", c.robust.rule, needed),
           fmt::format("min_sites {}, byzantine {}", c.cohort.min_sites, f),
           fmt::format("cohort.min_sites: {}", needed)},
          {c.cohort.size > 0 && c.cohort.min_sites > c.cohort.size,
           "cohort.min_sites is above cohort.size",
           fmt::format("{} and {}", c.cohort.min_sites, c.cohort.size),
           "cohort.min_sites at most cohort.size"},
          {c.cohort.size == 0 && c.cohort.extra > 0,
           "cohort.extra needs cohort.size",
           "with size 0 all sites are asked already",
           "cohort.extra: 0"},
          {c.partition.kind != "none" && !c.sites.empty(),
           "partition and sites exclude each other",
           "both say where sites get their data from",
           "one of them"},
          {c.partition.kind != "none" && c.partition.sites < 1,
           "partition.sites is missing",
           fmt::format("{}", c.partition.sites),
           "partition.sites: 10"}};
}

bool good_name(const std::string& name) {
  const std::string letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
  return !name.empty() && name.size() <= 64 && name[0] != '.' &&
         name.find_first_not_of(letters) == std::string::npos;
}

}  // namespace

void validate(const FederationConfig& config, const TrainingFacts& training) {
  refuse_first(secure_conflicts(config, training.lora));
  refuse_first(method_conflicts(config));
  refuse_first(privacy_conflicts(config, training.lora));
  refuse_first(noise_conflicts(config));
  refuse_first(scaffold_conflicts(config, training));
  refuse_first(adapter_conflicts(config, training));
  refuse_first(cohort_conflicts(config));
  std::set<std::string> names;
  for (const SiteConfig& site : config.sites) {
    refuse_first({{!good_name(site.name),
                   "federation.sites: not a name",
                   "'" + site.name + "'",
                   "letters, digits, '-', '_' and '.', at most 64"},
                  {!names.insert(site.name).second,
                   "federation.sites: a name comes twice",
                   "'" + site.name + "'",
                   "another name"}});
  }
}

}  // namespace kamerton::federation
