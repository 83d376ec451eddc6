// SPDX-License-Identifier: Apache-2.0
// What a run is made of, and its stretches: the whole run, or a task of a sequence.
#pragma once

#include <optional>

#include "kamerton/data/stream.h"
#include "kamerton/mesh/mesh.h"
#include "kamerton/text/bundle.h"
#include "kamerton/train/parts.h"
#include "kamerton/train/snapshot.h"

#include "assemble.h"

namespace kamerton::cli {

/// What lasts from the first task to the last; each member uses only those above it.
struct Run {
  const RunConfig& config;
  const comm::Group& world;
  mesh::Mesh mesh;
  text::TokenizerBundle bundle;
  Tuned tuned;

  Run(const RunConfig& run_config, const comm::Group& group);

  uint64_t seed() const { return static_cast<uint64_t>(config.train.seed); }
  int64_t max_positions() const { return tuned.decoder->config().context(); }
  optim::ShardGroups groups() const { return {mesh.shard(), mesh.replicate()}; }
};

/// One set of data, trained on for some steps. Opening it finds what is wrong with the data.
struct Phase {
  const RunConfig config;  ///< with the phase's data, length and folder
  int64_t number;          ///< of the task, from 0
  data::TrainStream batches;
  std::optional<data::EvalSet> held_out;
  int64_t total_steps;

  /// Collective.
  Phase(const Run& run, const RunConfig& phase_config, int64_t phase_number);
};

/// The configuration of a task: the run's, with the task's data and a folder of its own.
RunConfig config_of_task(const RunConfig& config, size_t task);

/// Steps of a pass over the data where the method asks, else 1. Collective.
int64_t steps_of_epoch(const Run& run, const Phase& phase);

train::RunIdentity identity_of(const Run& run, const Phase& phase);
checkpoint::StoreOptions store_options(const RunConfig& config);

/// Held-out data of other files in the phase's form: one answer a record, no replay.
data::EvalSet open_other(const RunConfig& config,
                         const std::vector<std::string>& files,
                         const text::TokenizerBundle& bundle,
                         int64_t max_positions);

/// The data that keep.ewc measures importance from: its own, the replayed, or those of the tasks
/// before task `number`.
std::vector<std::string> kept_files(const RunConfig& config, int64_t number);

/// Each element's importance for the data that shall be kept (keep.ewc), as the weights are now.
/// Collective.
void measure_importance(const Run& run,
                        const std::vector<std::string>& files,
                        optim::ShardedParameters& parameters);

}  // namespace kamerton::cli
