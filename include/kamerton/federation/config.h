// SPDX-License-Identifier: Apache-2.0
// The `federation:` section of a run: who takes part in a round, what a site does in it and how
// results become one.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kamerton/config/field.h"

namespace kamerton::federation {

/// A simulated site: its own files.
struct SiteConfig {
  std::string name;
  std::vector<std::string> train;
  std::vector<std::string> eval;
  int64_t rank = 0;
};

/// One data set cut into simulated sites.
struct PartitionConfig {
  std::string kind = "none";  ///< none | iid | dirichlet | size
  int64_t sites = 0;
  double alpha = 0.5;
  std::string label = "label";
  int64_t min_examples = 1;
};

/// Between download and upload of a round.
struct LocalConfig {
  std::optional<int64_t> steps;
  double epochs = 1;
  std::string optimizer_state = "reset";  ///< reset | keep
  double proximal_mu = 0;
  std::vector<std::string> personal;
  int64_t rank = 0;
};

struct ServerConfig {
  std::optional<double> lr;
  double momentum = 0.9;
  double beta1 = 0.9;
  double beta2 = 0.99;
  double tau = 1e-3;
  std::string initial_v = "tau_squared";  ///< tau_squared | zero
  bool bias_correction = false;
};

struct RobustConfig {
  std::string rule = "mean";  ///< mean | median | trimmed_mean | krum | multi_krum
  int64_t byzantine = 1;
  double norm_bound = 0;
};

struct CohortConfig {
  int64_t size = 0;
  int64_t extra = 0;
  int64_t start_sites = 0;
  int64_t min_sites = 1;
  double deadline_s = 3600;
};

struct UpdateConfig {
  std::string encoding = "f32";  ///< f32 | bf16 | int8 | top_k | ring32
  double top_k = 0.01;
  bool error_feedback = true;
  double ring_range = 1.0;
  double max_weight = 0;
};

struct PrivacyConfig {
  bool secure_aggregation = false;
  int64_t threshold = 0;
  double site_clip = 0;
  double site_noise = 0;
  double site_epsilon = 0;
  double site_delta = 1e-5;
};

struct FederationConfig {
  std::string method = "fedavg";
  int64_t rounds = 10;
  std::string weights = "targets";  ///< targets | examples | uniform
  std::string adapters = "ffa";     ///< ffa | stack | svd | average_factors
  CohortConfig cohort;
  LocalConfig local;
  ServerConfig server;
  RobustConfig robust;
  UpdateConfig update;
  PrivacyConfig privacy;
  int64_t eval_every = 1;
  int64_t patience = 0;
  int64_t keep_models = 0;
  int64_t ranks_per_site = 1;
  PartitionConfig partition;
  std::vector<SiteConfig> sites;
};

void describe(config::Fields& fields, SiteConfig& config);
void describe(config::Fields& fields, PartitionConfig& config);
void describe(config::Fields& fields, LocalConfig& config);
void describe(config::Fields& fields, ServerConfig& config);
void describe(config::Fields& fields, RobustConfig& config);
void describe(config::Fields& fields, CohortConfig& config);
void describe(config::Fields& fields, UpdateConfig& config);
void describe(config::Fields& fields, PrivacyConfig& config);
void describe(config::Fields& fields, FederationConfig& config);

/// What the rest of a run's file means for a federation.
struct TrainingFacts {
  bool lora = false;
  std::string optimizer = "adamw";
  double momentum = 0;
  std::string schedule = "constant";
  int64_t warmup_steps = 0;
};

/// Refuses what does not go together and says why: ErrorKind::Config. Pure.
void validate(const FederationConfig& config, const TrainingFacts& training);

/// Whether sites send whole adapters instead of differences (all but ffa).
bool sends_adapters(const FederationConfig& config, bool lora);
/// Vectors side by side in the exchanged state: 2 for SCAFFOLD (weights, control), else 1.
int64_t exchanged_vectors(const FederationConfig& config);
/// Whether integers travel multiplied by their site's weight (update.max_weight).
bool weighs_integers(const FederationConfig& config);
/// What this weight multiplies: weight / max_weight, at most 1.
double integer_weight(const FederationConfig& config, double weight);
/// server.lr, or what the method's paper uses.
double server_lr(const FederationConfig& config);

}  // namespace kamerton::federation
