// SPDX-License-Identifier: Apache-2.0
#include "kamerton/optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kamerton/core/error.h"

namespace kamerton::optim {

namespace {

double share(int64_t part, int64_t whole) {
  return static_cast<double>(part) / static_cast<double>(std::max<int64_t>(1, whole));
}

/// From 1 at progress 0 to 0 at progress 1.
double fall(const std::string& shape, double progress) {
  if (shape == "linear") {
    return 1.0 - progress;
  }
  if (shape == "1-sqrt") {
    return 1.0 - std::sqrt(progress);
  }
  return 0.5 * (1.0 + std::cos(std::numbers::pi * progress));
}

double above_floor(double factor, double floor) {
  return factor * (1.0 - floor) + floor;
}

double wsd_factor(const OptimConfig& config, int64_t step, int64_t warmup, int64_t total) {
  const auto decay =
      static_cast<int64_t>(std::ceil(config.decay_ratio * static_cast<double>(total)));
  const int64_t decay_start = std::max(warmup, total - decay);
  if (step < warmup) {
    return above_floor(share(step, warmup), config.min_lr_ratio);
  }
  if (step < decay_start) {
    return 1.0;
  }
  if (step < decay_start + decay) {
    return above_floor(fall(config.decay_shape, share(step - decay_start, decay)),
                       config.min_lr_ratio);
  }
  return config.min_lr_ratio;
}

}  // namespace

int64_t num_warmup_steps(const OptimConfig& config, int64_t total_steps) {
  if (config.warmup_steps) {
    return *config.warmup_steps;
  }
  return static_cast<int64_t>(std::ceil(config.warmup_ratio * static_cast<double>(total_steps)));
}

double learning_rate(const OptimConfig& config, int64_t step, int64_t total_steps) {
  if (step < 0 || total_steps < 0) {
    throw core::Error(core::ErrorKind::Config,
                      {.where = "optim.learning_rate",
                       .what = "a step cannot be negative",
                       .got = "step " + std::to_string(step) + " of " + std::to_string(total_steps),
                       .allowed = "0 and up",
                       .hint = {}});
  }
  const int64_t warmup = num_warmup_steps(config, total_steps);
  if (config.schedule == "wsd") {
    return config.lr * wsd_factor(config, step, warmup, total_steps);
  }
  if (step < warmup) {
    return config.lr * share(step, warmup);
  }
  if (config.schedule == "constant") {
    return config.lr;
  }
  const double progress = std::min(1.0, share(step - warmup, total_steps - warmup));
  return config.lr * above_floor(fall(config.schedule, progress), config.min_lr_ratio);
}

}  // namespace kamerton::optim
