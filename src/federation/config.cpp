// SPDX-License-Identifier: Apache-2.0
#include "kamerton/federation/config.h"

#include <algorithm>

namespace kamerton::federation {

void describe(config::Fields& f, PartitionConfig& c) {
  f.knob("kind",
         c.kind,
         {.text = "how data.train is cut into sites: at random, by a Dirichlet distribution over "
                  "labels a site, or into sites of unequal size",
          .choices = {"none", "iid", "dirichlet", "size"}});
  f.knob("sites", c.sites, {.text = "how many sites", .min = 0});
  f.knob("alpha",
         c.alpha,
         {.text = "concentration of the Dirichlet draws (labels of a site, or sizes): small is "
                  "uneven",
          .min = 0,
          .min_exclusive = true});
  f.knob("label", c.label, {.text = "the record's key that dirichlet goes by"});
  f.knob("min_examples", c.min_examples, {.text = "every site gets at least so many", .min = 1});
}

void describe(config::Fields& f, LocalConfig& c) {
  f.knob("steps",
         c.steps,
         {.text = "length of a site's work in a round; wins over epochs",
          .unit = "optimizer updates",
          .min = 1});
  f.knob("epochs",
         c.epochs,
         {.text = "length of a site's work in a round",
          .unit = "passes over its data",
          .min = 0,
          .min_exclusive = true});
  f.knob("optimizer_state",
         c.optimizer_state,
         {.text = "the local optimizer's moments from round to round; DiLoCo keeps them",
          .cost = "keep: a site stores them",
          .choices = {"reset", "keep"}});
  f.knob("proximal_mu",
         c.proximal_mu,
         {.text = "FedProx: mu/2 |w - x|^2 is added to a site's objective (method fedprox)",
          .min = 0});
  f.knob("personal",
         c.personal,
         {.text = "regular expressions; parameters whose whole name matches one stay at their site "
                  "and are never sent (FedPer)"});
  f.knob("rank",
         c.rank,
         {.text = "this site's rank of adapters, up to tuning.lora.r (adapters stack and svd): "
                  "rows and columns above it stay zero; 0: tuning.lora.r",
          .min = 0});
}

void describe(config::Fields& f, ServerConfig& c) {
  f.knob("lr",
         c.lr,
         {.text = "step along the mean update; absent: 1 (fedavg, fedprox, fedavgm, scaffold), 0.1 "
                  "(fedadam, fedadagrad), 0.01 (fedyogi), 0.7 (diloco)",
          .min = 0,
          .min_exclusive = true});
  f.knob("momentum", c.momentum, {.text = "fedavgm, diloco", .min = 0, .max = 0.9999});
  f.knob("beta1",
         c.beta1,
         {.text = "fedadam, fedyogi, fedadagrad: first moment", .min = 0, .max = 0.9999});
  f.knob("beta2", c.beta2, {.text = "fedadam, fedyogi: second moment", .min = 0, .max = 0.99999});
  f.knob("tau",
         c.tau,
         {.text = "added to the root of the second moment (arXiv 2003.00295)",
          .min = 0,
          .min_exclusive = true});
  f.knob("initial_v",
         c.initial_v,
         {.text = "second moment at the start: the paper's, or Flower's",
          .choices = {"tau_squared", "zero"}});
  f.knob("bias_correction",
         c.bias_correction,
         {.text = "fedadam: as Flower's, with exponent round + 1 (rounds from 1); the paper has "
                  "none"});
}

void describe(config::Fields& f, RobustConfig& c) {
  f.knob("rule",
         c.rule,
         {.text = "how updates become one; median and trimmed_mean go by coordinate, krum picks "
                  "the update nearest to its neighbours, multi_krum averages the n - byzantine "
                  "best",
          .choices = {"mean", "median", "trimmed_mean", "krum", "multi_krum"}});
  f.knob("byzantine",
         c.byzantine,
         {.text = "sites that may lie: dropped at each end (trimmed_mean), f of Krum", .min = 0});
  f.knob("norm_bound",
         c.norm_bound,
         {.text = "updates with a larger 2-norm are scaled down to it; 0: none", .min = 0});
}

void describe(config::Fields& f, CohortConfig& c) {
  f.knob("size", c.size, {.text = "sites whose results make a round; 0: all", .min = 0});
  f.knob("extra",
         c.extra,
         {.text = "sites asked beyond `size`; the round closes when `size` have answered",
          .cost = "their work is lost",
          .min = 0});
  f.knob("start_sites",
         c.start_sites,
         {.text = "sites that must have joined before the first round; 0: the larger of min_sites "
                  "and size",
          .min = 0});
  f.knob("min_sites",
         c.min_sites,
         {.text = "a round with fewer results leaves the model as it is", .min = 1});
  f.knob("deadline_s",
         c.deadline_s,
         {.text = "a round waits so long for the next sign of progress of any site (joining, a "
                  "sixteenth of an update, a result), then closes "
                  "without those that are missing",
          .unit = "seconds",
          .min = 0,
          .min_exclusive = true});
}

void describe(config::Fields& f, UpdateConfig& c) {
  f.knob("encoding",
         c.encoding,
         {.text = "what a site sends: f32 4 bytes a parameter, bf16 2, int8 1, top_k 4 bytes for "
                  "each kept one, ring32 4 bytes of fixed point (sums are exact integers)",
          .choices = {"f32", "bf16", "int8", "top_k", "ring32"}});
  f.knob("top_k",
         c.top_k,
         {.text = "top_k: the share of parameters that is sent, largest first in every 1024",
          .min = 0,
          .max = 1,
          .min_exclusive = true});
  f.knob("error_feedback",
         c.error_feedback,
         {.text = "what rounding left out is added to the site's next update (bf16, int8, top_k)",
          .cost = "4 bytes a parameter on the site's disk"});
  f.knob("ring_range",
         c.ring_range,
         {.text = "ring32: coordinates of updates are clipped to +- this",
          .min = 0,
          .min_exclusive = true});
  f.knob(
      "max_weight",
      c.max_weight,
      {.text = "ring32 with weights targets or examples: what counts most (larger ones count as "
               "this); updates travel multiplied by weight / max_weight, with that factor beside "
               "them, so that the coordinator learns the weights' sum alone",
       .cost = "sites far below it lose digits",
       .min = 0});
}

void describe(config::Fields& f, PrivacyConfig& c) {
  f.knob("secure_aggregation",
         c.secure_aggregation,
         {.text = "updates are masked; the coordinator learns their sum alone",
          .cost = "four more messages a round"});
  f.knob("threshold",
         c.threshold,
         {.text = "sites that must help to remove masks; 0: two thirds of the cohort, plus one",
          .min = 0});
  f.knob("site_clip",
         c.site_clip,
         {.text = "differential privacy of whole sites: a site scales its update down to this "
                  "2-norm; 0: none",
          .min = 0});
  f.knob("site_noise",
         c.site_noise,
         {.text = "differential privacy of whole sites: standard deviation of the noise in the sum "
                  "of a round over site_clip. Each site adds its share, so that the sum of "
                  "cohort.min_sites of them carries it; 0: none",
          .cost = "the mean moves by site_noise * site_clip / sites in every parameter: for many "
                  "sites only",
          .min = 0});
  f.knob(
      "site_epsilon",
      c.site_epsilon,
      {.text = "budget of a site over all runs: it leaves the run before a round would exceed it",
       .min = 0});
  f.knob("site_delta",
         c.site_delta,
         {.text = "delta of site_epsilon; well below one over the number of sites",
          .min = 0,
          .max = 0.5,
          .min_exclusive = true});
}

namespace {

void describe_parts(config::Fields& f, FederationConfig& c) {
  f.section("cohort", c.cohort, "Who takes part in a round.");
  f.section("local", c.local, "What a site does in a round.");
  f.section("server", c.server, "What the coordinator does with the mean update.");
  f.section("robust", c.robust, "Defences against sites that lie.");
  f.section("update", c.update, "What travels.");
  f.section("privacy", c.privacy, "Masks and noise.");
}

}  // namespace

void describe(config::Fields& f, SiteConfig& c) {
  f.knob("name", c.name, {.text = "letters, digits, '-', '_' and '.'"});
  f.knob("train", c.train, {.text = "the site's training files"});
  f.knob("eval", c.eval, {.text = "the site's held-out files; empty: data.eval"});
  f.knob("rank", c.rank, {.text = "its local.rank; 0: that of the run", .min = 0});
}

void describe(config::Fields& f, FederationConfig& c) {
  f.knob("method",
         c.method,
         {.text = "how sites' work becomes one model",
          .choices = {"fedavg",
                      "fedprox",
                      "fedavgm",
                      "fedadam",
                      "fedyogi",
                      "fedadagrad",
                      "scaffold",
                      "diloco"}});
  f.knob("rounds", c.rounds, {.text = "length of the run", .min = 1});
  f.knob(
      "weights",
      c.weights,
      {.text =
           "what a site's update counts by in the mean: tokens trained on in the round, examples "
           "that it has, or all alike",
       .choices = {"targets", "examples", "uniform"}});
  f.knob("adapters",
         c.adapters,
         {.text = "LoRA: ffa freezes A at its start and averages B, which is exact; stack sends "
                  "all factors and merges their exact sum (FLoRA); svd cuts the exact sum back to "
                  "the rank (FlexLoRA); average_factors averages A and B apart, which is wrong by "
                  "up to 79 % of the update when sites drift",
          .cost = "stack: downloads grow with the number of sites",
          .choices = {"ffa", "stack", "svd", "average_factors"}});
  describe_parts(f, c);
  f.knob("eval_every",
         c.eval_every,
         {.text = "sites measure the model that they receive every so many rounds, and at the end; "
                  "0: never",
          .min = 0});
  f.knob("patience",
         c.patience,
         {.text = "stop after so many evaluations without a better loss; 0: never", .min = 0});
  f.knob("keep_models",
         c.keep_models,
         {.text = "newest rounds whose model stays on the coordinator's disk; 0: all", .min = 0});
  f.knob("ranks_per_site",
         c.ranks_per_site,
         {.text = "simulate: MPI ranks that work on a site together", .min = 1});
  f.section("partition", c.partition, "simulate: one data set cut into sites.");
  f.list("sites", c.sites, "simulate: sites with files of their own.");
}

bool sends_adapters(const FederationConfig& config, bool lora) {
  return lora && config.adapters != "ffa";
}

int64_t exchanged_vectors(const FederationConfig& config) {
  return config.method == "scaffold" ? 2 : 1;
}

bool weighs_integers(const FederationConfig& config) {
  return config.update.encoding == "ring32" && config.weights != "uniform";
}

double integer_weight(const FederationConfig& config, double weight) {
  return std::min(weight / config.update.max_weight, 1.0);
}

double server_lr(const FederationConfig& config) {
  if (config.server.lr.has_value()) {
    return *config.server.lr;
  }
  if (config.method == "fedadam" || config.method == "fedadagrad") {
    return 0.1;
  }
  if (config.method == "fedyogi") {
    return 0.01;
  }
  return config.method == "diloco" ? 0.7 : 1.0;
}

}  // namespace kamerton::federation
