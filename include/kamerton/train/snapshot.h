// SPDX-License-Identifier: Apache-2.0
// A run's state to disk and back: joins the parameters' owner, the data stream and the checkpoint
// store.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "kamerton/checkpoint/store.h"
#include "kamerton/comm/group.h"
#include "kamerton/core/json.h"
#include "kamerton/data/stream.h"
#include "kamerton/objective/objective.h"
#include "kamerton/optim/sharded_parameters.h"
#include "kamerton/train/event.h"
#include "kamerton/train/progress.h"

namespace kamerton::train {

/// What identifies a run; written into every checkpoint and compared on resume.
struct RunIdentity {
  std::string config_yaml;  ///< resolved configuration
  std::string base_model;   ///< folder of the base model
  std::string method;       ///< "lora", "full"
  int64_t total_steps = 0;
  std::string details_json = "{}";  ///< further facts for people, a JSON object (tokenizer digest,
                                    ///< version, world size, ZeRO stage ...)
};

/// All member functions are collective over the group.
class Snapshots {
 public:
  /// Removes what an interrupted save left behind. The objective's state is saved too, when given.
  Snapshots(const std::filesystem::path& folder,
            const comm::Group& world,
            optim::ShardedParameters& parameters,
            data::TrainStream& batches,
            RunIdentity identity,
            const checkpoint::StoreOptions& options,
            objective::Objective* objective = nullptr);
  ~Snapshots();

  /// Saves weights that are trained, optimizer state, data position and progress. On an error
  /// nothing is published and every rank throws.
  Saved save(const Progress& progress);

  /// Throws ErrorKind::Io when a checkpoint would not fit on the disk: better before the first step
  /// than after the last one. Collective.
  void require_space() const;

  /// Loads the newest complete checkpoint, if there is one: on any world size and ZeRO stage.
  /// ErrorKind::Config when it belongs to other data, another base model or another method.
  /// `prepare` is told the steps done before anything is loaded: what is trained then must be set.
  std::optional<Progress> resume(const std::function<void(int64_t steps)>& prepare = {});

  /// Removes the checkpoints of later steps: the run goes on from, or ends with, this one.
  void forget_after(int64_t step);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace kamerton::train
