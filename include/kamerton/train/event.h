// SPDX-License-Identifier: Apache-2.0
// What happened in a run. Read-only news for sinks; decisions are made in policy.h.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace kamerton::train {

struct StepDone {
  int64_t step;
  int64_t total_steps;
  double loss;
  double grad_norm;
  double lr;
  int64_t tokens;  ///< read in this step, all ranks
  int64_t targets;
  bool skipped;
  std::vector<std::pair<std::string, double>> metrics;  ///< the objective's, such as rewards
};

struct EvalDone {
  int64_t step;
  double loss;
  std::vector<std::pair<std::string, double>> metrics;
};

struct Saved {
  int64_t step;
  std::string folder;
  int64_t bytes;   ///< over all ranks
  double seconds;  ///< that the run stood still
};

struct SaveFailed {
  int64_t step;
  std::string message;
};

struct Stopped {
  int64_t step;
  std::string reason;
};

using Event = std::variant<StepDone, EvalDone, Saved, SaveFailed, Stopped>;

}  // namespace kamerton::train
