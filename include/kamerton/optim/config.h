// SPDX-License-Identifier: Apache-2.0
// What the optimizer does: rule, learning rate over time, clipping, and how its memory is spread
// over ranks.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kamerton/config/field.h"

namespace kamerton::optim {

/// Parameters with a learning rate or weight decay of their own.
struct ParameterGroup {
  std::string match;                   ///< regular expression for whole names
  double lr_ratio = 1.0;               ///< of optim.lr
  std::optional<double> weight_decay;  ///< absent: as without the group
};

/// The `optim` section of a run. Ranges and meanings are stated once, in describe().
struct OptimConfig {
  std::string algorithm = "adamw";  ///< adamw | sgd | adamw8bit | muon | apollo | adafactor
  double lr = 2e-5;                 ///< peak learning rate
  double beta1 = 0.9;               ///< AdamW: decay of the first moment
  double beta2 = 0.999;             ///< AdamW: decay of the second moment
  double eps = 1e-8;                ///< AdamW: added to the denominator
  double momentum = 0.9;            ///< SGD; Muon, where 0.95 is usual
  std::string muon_scale = "rms";   ///< Muon: rms | original
  int64_t apollo_rank = 64;         ///< APOLLO: dimensions of the projection; 1: Mini
  std::string apollo_scale_type = "channel";  ///< APOLLO: channel | tensor
  double apollo_scale = 1.0;                  ///< APOLLO: the update times its square root
  int64_t apollo_update_gap = 200;            ///< APOLLO: updates between random matrices
  bool scale_by_weights = true;               ///< Adafactor: the learning rate times rms(weights)
  double weight_decay = 0.01;                 ///< AdamW: decoupled; SGD: added to the gradient
  bool decay_1d = false;                      ///< also decay parameters with fewer than two dims
  std::vector<ParameterGroup> groups;         ///< the last that matches a parameter counts
  double layer_decay = 1.0;             ///< ratio of a layer's learning rate to the next one's
  double max_grad_norm = 1.0;           ///< global 2-norm; 0: no clipping
  std::string schedule = "cosine";      ///< constant | linear | cosine | wsd
  std::optional<int64_t> warmup_steps;  ///< wins over warmup_ratio
  double warmup_ratio = 0.03;           ///< of all updates, rounded up
  double min_lr_ratio = 0.0;            ///< lr at the end over the peak
  double decay_ratio = 0.1;             ///< wsd: the last part of the run, over which lr falls
  std::string decay_shape = "cosine";   ///< wsd: cosine | linear | 1-sqrt
  double ema_decay = 0.0;               ///< of a moving average of the weights; 0: none
  int64_t zero_stage = 1;               ///< 0 ... 3
  int64_t max_skipped_steps = 10;       ///< consecutive non-finite steps before the run stops
  /// No knobs: set by `keep`. Added to what is minimised: half of l2 times the squared distance to
  /// the start, and of ewc times that distance weighted by each element's importance (anchor.cpp).
  double l2 = 0.0;
  double ewc = 0.0;
  /// No knob: how much each element matters is kept (rank_budget.h).
  bool sensitivity = false;
  /// No knob: ratios that a tuning method asks for (LoRA+), on top of `groups`.
  std::vector<ParameterGroup> method_groups;
};

void describe(config::Fields& fields, ParameterGroup& group);
void describe(config::Fields& fields, OptimConfig& config);

/// What describe()'s ranges cannot say (fields that exclude each other). Pure: every rank finds the
/// same fault. Throws ErrorKind::Config.
void validate(const OptimConfig& config);

}  // namespace kamerton::optim
