// SPDX-License-Identifier: Apache-2.0
// The objective of a run, with the models that it reads beside the trained one.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kamerton/objective/judge.h"
#include "kamerton/objective/reference.h"
#include "kamerton/objective/teacher_store.h"

#include "assemble.h"
#include "frozen_model.h"

namespace kamerton::cli {

/// What an objective is made of besides the configuration; all of it outlives the objective.
struct ObjectiveInputs {
  Tuned& tuned;
  optim::ShardedParameters& parameters;
  optim::ShardGroups groups;
  const comm::Group& world;
  const data::Dataset& train;
  const data::Dataset* held_out;  ///< null: none
};

class RunObjective {
 public:
  /// Loads a reference model when the method needs one of its own; collective then. The reference
  /// is objective.reference; else the base model, by switching a new adapter off or by a second
  /// copy; else (an adapter that is trained further) a copy of base and adapter as they start.
  /// With objective.precompute_reference its numbers are computed first, or found, and it goes.
  RunObjective(const RunConfig& config, const ObjectiveInputs& inputs);

  objective::Objective& get() { return *objective_; }
  /// "SFT", "DPO (sigmoid) beside the base model (adapter off)": for the header.
  const std::string& text() const { return text_; }

 private:
  void find_reference(const RunConfig& config, const ObjectiveInputs& inputs);
  void load_reference(const RunConfig& config, const ObjectiveInputs& inputs);
  bool find_stored(const RunConfig& config, const ObjectiveInputs& inputs);
  void store_reference(const RunConfig& config, const ObjectiveInputs& inputs);
  void build(const RunConfig& config, const ObjectiveInputs& inputs);
  void build_distillation(const RunConfig& config, const ObjectiveInputs& inputs);
  void find_teacher_numbers(const RunConfig& config, const ObjectiveInputs& inputs);
  void build_replay(const RunConfig& config, const ObjectiveInputs& inputs);
  void build_policy(const RunConfig& config, const ObjectiveInputs& inputs);
  std::unique_ptr<objective::Judge> make_judge(const RunConfig& config,
                                               const objective::RewardConfig& reward,
                                               const ObjectiveInputs& inputs);

  std::unique_ptr<FrozenModel> other_;
  std::vector<std::unique_ptr<FrozenModel>> judges_;
  std::unique_ptr<objective::Reference> reference_;
  std::unique_ptr<objective::StoredReferences> stored_;
  std::unique_ptr<objective::StoredTeachers> teachers_;
  std::unique_ptr<objective::Objective> objective_;
  std::string text_;
};

}  // namespace kamerton::cli
