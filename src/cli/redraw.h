// SPDX-License-Identifier: Apache-2.0
// Half Fine-Tuning over a run: which half is trained at which step.
#pragma once

#include <cstdint>

#include "assemble.h"

namespace kamerton::cli {

/// Without method half, or with redraw never, nothing happens. Draws follow from the step alone, so
/// that a resumed run makes the same ones.
class Redraw {
 public:
  /// `first`: the draw that the run begins with (its task's number when tasks redraw).
  /// `epoch_steps`: steps of a pass over the data; read for redraw epoch only. References must
  /// outlive this.
  Redraw(const RunConfig& config,
         const Tuned& tuned,
         optim::ShardedParameters& parameters,
         int64_t first,
         int64_t epoch_steps);

  /// Before step `step` (from 1): changes the half when a pass has ended. Collective; a line on
  /// rank 0.
  void before_step(int64_t step, const comm::Group& world);
  /// Repeats the draws of the first `steps` steps, so that their state can be loaded. Collective.
  void catch_up(int64_t steps);

 private:
  int64_t draw_of(int64_t step) const;
  void change_to(int64_t draw);

  const RunConfig& config_;
  const Tuned& tuned_;
  optim::ShardedParameters& parameters_;
  int64_t epoch_steps_;
  int64_t now_;
};

}  // namespace kamerton::cli
