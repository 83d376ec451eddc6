// SPDX-License-Identifier: Apache-2.0
// One step: one optimizer update, or those that an objective makes with one set of answers.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "kamerton/train/parts.h"

namespace kamerton::train {

struct StepReport {
  double loss = 0;       ///< mean over the targets of all ranks and micro-batches; with several
                         ///< updates of the last one, as is the gradient's norm
  double grad_norm = 0;  ///< before clipping
  int64_t updates = 0;   ///< that were applied
  double lr = 0;
  int64_t targets = 0;   ///< tokens that were trained on, all ranks
  int64_t tokens = 0;    ///< tokens that were read, all ranks
  bool skipped = false;  ///< loss or gradient not finite on some rank: nothing was updated
  /// The objective's, means over all ranks, and the method's.
  std::vector<std::pair<std::string, double>> metrics;
};

/// Runs step number `step` (from 1) of `total_steps`; `update_number`: the number of its first
/// update among the applied ones, should it be applied. Collective over all ranks; every rank
/// returns the same report.
StepReport run_step(Parts& parts, int64_t step, int64_t update_number, int64_t total_steps);

}  // namespace kamerton::train
