// SPDX-License-Identifier: Apache-2.0
// The whole of a run's YAML file: the sum of every module's config.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "kamerton/config/load.h"
#include "kamerton/data/config.h"
#include "kamerton/federation/config.h"
#include "kamerton/mesh/config.h"
#include "kamerton/model/config.h"
#include "kamerton/objective/config.h"
#include "kamerton/optim/config.h"
#include "kamerton/privacy/config.h"
#include "kamerton/train/config.h"
#include "kamerton/train/keep.h"
#include "kamerton/tuning/config.h"

namespace kamerton::cli {

struct TelemetryConfig {
  bool tensorboard = true;
};

struct RunConfig {
  std::string name;
  std::string output = "runs";
  model::ModelOptions model;
  tuning::TuningConfig tuning;
  objective::ObjectiveConfig objective;
  data::DataConfig data;
  optim::OptimConfig optim;
  mesh::MeshConfig mesh;
  train::TrainConfig train;
  privacy::RecordPrivacyConfig privacy;
  train::KeepConfig keep;
  std::vector<train::WatchConfig> watch;
  std::vector<train::TaskConfig> tasks;
  TelemetryConfig telemetry;
  federation::FederationConfig federation;

  std::filesystem::path folder() const { return std::filesystem::path(output) / name; }
};

void describe(config::Fields& fields, TelemetryConfig& config);
void describe(config::Fields& fields, RunConfig& config);

/// Sets what other sections follow from: what examples are, which heads the model has.
void derive(RunConfig& config);

/// The file with the --set overrides applied; `name` falls back to the file's stem. Throws
/// ErrorKind::Config.
RunConfig load_run_config(const std::string& path, const std::vector<std::string>& overrides);

}  // namespace kamerton::cli
