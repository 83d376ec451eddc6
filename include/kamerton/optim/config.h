// SPDX-License-Identifier: Apache-2.0
// What the optimizer does: rule, learning rate over time, clipping, and how its memory is spread
// over ranks.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "kamerton/config/field.h"

namespace kamerton::optim {

/// The `optim` section of a run. Ranges and meanings are stated once, in describe().
struct OptimConfig {
  std::string algorithm = "adamw";      ///< adamw | sgd
  double lr = 2e-5;                     ///< peak learning rate
  double beta1 = 0.9;                   ///< AdamW: decay of the first moment
  double beta2 = 0.999;                 ///< AdamW: decay of the second moment
  double eps = 1e-8;                    ///< AdamW: added to the denominator
  double momentum = 0.9;                ///< SGD
  double weight_decay = 0.01;           ///< AdamW: decoupled; SGD: added to the gradient
  bool decay_1d = false;                ///< also decay parameters with fewer than two dims
  double max_grad_norm = 1.0;           ///< global 2-norm; 0: no clipping
  std::string schedule = "cosine";      ///< constant | linear | cosine | wsd
  std::optional<int64_t> warmup_steps;  ///< wins over warmup_ratio
  double warmup_ratio = 0.03;           ///< of all updates, rounded up
  double min_lr_ratio = 0.0;            ///< lr at the end over the peak
  double decay_ratio = 0.1;             ///< wsd: the last part of the run, over which lr falls
  std::string decay_shape = "cosine";   ///< wsd: cosine | linear | 1-sqrt
  int64_t zero_stage = 1;               ///< 0 ... 3
  int64_t max_skipped_steps = 10;       ///< consecutive non-finite steps before the run stops
};

void describe(config::Fields& fields, OptimConfig& config);

/// What describe()'s ranges cannot say (fields that exclude each other). Pure: every rank finds the
/// same fault. Throws ErrorKind::Config.
void validate(const OptimConfig& config);

/// Moments kept per trainable element: adamw 2, sgd 1, sgd without momentum 0.
int num_moments(const OptimConfig& config);

}  // namespace kamerton::optim
