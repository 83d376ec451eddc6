// SPDX-License-Identifier: Apache-2.0
// References to everything a run is made of. Built by cli, used by the loop; owns nothing.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "kamerton/comm/group.h"
#include "kamerton/data/stream.h"
#include "kamerton/model/decoder.h"
#include "kamerton/objective/objective.h"
#include "kamerton/optim/sharded_parameters.h"
#include "kamerton/train/config.h"
#include "kamerton/train/event.h"
#include "kamerton/train/progress.h"
#include "kamerton/train/snapshot.h"
#include "kamerton/tuning/adapter_switch.h"
#include "kamerton/tuning/neftune.h"

namespace kamerton::train {

class RecordPrivacy;

struct Parts {
  const TrainConfig& config;
  const optim::OptimConfig& optim_config;
  const comm::Group& world;
  model::Decoder& model;
  objective::Objective& objective;
  optim::ShardedParameters& parameters;
  data::TrainStream& batches;
  tuning::DropoutKeys* dropout;  ///< null without an adapter
  tuning::Neftune* noise;        ///< on the embeddings; null: none
  Snapshots* snapshots;  ///< null where run_loop() is not used: nothing is saved
  std::function<bool(int64_t)> begin_step;  ///< told the number of a step that begins; true: its
                                            ///< loss shall be no number (a fault under test)
  std::function<EvalDone(int64_t step)>
      evaluate;  ///< on held-out data, over all ranks; empty: none
  /// A reason to end the run after this evaluation, or none; may roll parameters and progress back.
  std::function<std::optional<std::string>(const EvalDone&, Progress&)> judge;
  std::function<void(const Event&)> emit;  ///< events go to sinks; called on every rank
  RecordPrivacy* privacy =
      nullptr;  ///< takes the steps where records are to be hidden; null: nobody
};

}  // namespace kamerton::train
