// SPDX-License-Identifier: Apache-2.0
// What happens after a step: a pure function, the same on every rank.
#pragma once

#include <cstdint>

#include "kamerton/train/config.h"

namespace kamerton::train {

struct Decision {
  bool evaluate = false;
  bool save = false;
  bool stop = false;  ///< asked to end before the last step
};

/// After `step` (from 1) of `total_steps`; `stop_asked`: a stop signal reached some rank (agreed
/// before). The last step is always evaluated and saved; a stop saves but does not evaluate (the
/// grace time is short).
Decision decide(const TrainConfig& config, int64_t step, int64_t total_steps, bool stop_asked);

}  // namespace kamerton::train
