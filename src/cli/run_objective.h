// SPDX-License-Identifier: Apache-2.0
// The objective of a run, with the reference model that it may compare with.
#pragma once

#include <memory>

#include "kamerton/objective/preference.h"

#include "assemble.h"

namespace kamerton::cli {

class RunObjective {
 public:
  /// Loads a reference model when the method needs one of its own; collective then. The reference
  /// is objective.reference; else the base model, by switching a new adapter off or by a second
  /// copy; else (an adapter that is trained further) a copy of base and adapter as they start.
  /// `tuned` must outlive this.
  RunObjective(const RunConfig& config, Tuned& tuned, const optim::ShardGroups& groups);

  objective::Objective& get() { return *objective_; }
  /// "SFT", "DPO (sigmoid) beside the base model (adapter off)": for the header.
  const std::string& text() const { return text_; }

 private:
  void load_reference(const RunConfig& config, Tuned& tuned, const optim::ShardGroups& groups);

  Tuned other_;
  std::unique_ptr<optim::ShardedParameters> placed_;
  std::unique_ptr<objective::Reference> reference_;
  std::unique_ptr<objective::Objective> objective_;
  std::string text_;
};

}  // namespace kamerton::cli
