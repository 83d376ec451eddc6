// SPDX-License-Identifier: Apache-2.0
// The learning rate as a pure function of the step: nothing to save, nothing to restore.
#pragma once

#include <cstdint>

#include "kamerton/optim/config.h"

namespace kamerton::optim {

/// Updates of warm-up out of `total_steps`: config.warmup_steps, else ceil(warmup_ratio *
/// total_steps).
int64_t num_warmup_steps(const OptimConfig& config, int64_t total_steps);

/// The learning rate of update `step` (0, 1, ... total_steps - 1). Under warm-up step 0 has rate 0.
/// Equal to transformers' get_{constant,linear,cosine,wsd}_schedule_with_warmup, and for
/// min_lr_ratio > 0 to its cosine_with_min_lr (linear decays to that ratio likewise; wsd also
/// starts its warm-up there, as transformers' does). Past the end the final rate stays. Throws
/// ErrorKind::Config for a negative step or total.
double learning_rate(const OptimConfig& config, int64_t step, int64_t total_steps);

}  // namespace kamerton::optim
