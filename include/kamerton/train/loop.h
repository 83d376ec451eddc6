// SPDX-License-Identifier: Apache-2.0
// The loop: step, tell, evaluate, save, obey.
#pragma once

#include <cstdint>

#include "kamerton/train/parts.h"
#include "kamerton/train/progress.h"

namespace kamerton::train {

enum class Outcome {
  Finished,
  Preempted,
  Enough,  ///< Parts::judge ended it
};

/// Runs from `progress` to `total_steps`. Collective over all ranks. Throws ErrorKind::Numeric
/// after too many skipped steps in a row, and what saving throws when checkpoint.on_save_error is
/// "abort".
Outcome run_loop(Parts& parts, Progress& progress, int64_t total_steps);

}  // namespace kamerton::train
