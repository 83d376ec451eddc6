// SPDX-License-Identifier: Apache-2.0
// What a run will need, before anything is loaded.
#pragma once

#include "kamerton/optim/memory_plan.h"

#include "assemble.h"
#include "run_config.h"

namespace kamerton::cli {

/// The predicted memory of a rank, of `ranks` that each `shard_size` hold the model together. Reads
/// the config.json of every model of the run.
optim::MemoryPlan plan_run(const RunConfig& config, const Tuned& tuned, int shard_size, int ranks);

}  // namespace kamerton::cli
