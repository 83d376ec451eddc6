// SPDX-License-Identifier: Apache-2.0
// A method that prunes ranks (AdaLoRA), for the length of a run.
#pragma once

#include "kamerton/optim/sharded_parameters.h"

#include "assemble.h"

namespace kamerton::cli {

/// Has the engine prune as the adapter's settings ask. Nothing for other methods, for triplets
/// of which a part is frozen, and for an adapter that is trained further: it keeps its ranks. The
/// schedule's length becomes a setting of the adapter. Throws ErrorKind::Config when no step is
/// left to prune in.
void set_rank_budget(const RunConfig& config,
                     Tuned& tuned,
                     int64_t total_steps,
                     optim::ShardedParameters& parameters);

}  // namespace kamerton::cli
