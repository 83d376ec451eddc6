// SPDX-License-Identifier: Apache-2.0
// How far a run is: the scalars of a checkpoint.
#pragma once

#include <cstdint>
#include <vector>

namespace kamerton::train {

struct LogEntry {
  int64_t step;
  double loss;
  double grad_norm;
  double lr;
};

struct Progress {
  int64_t step = 0;     ///< steps done
  int64_t updates = 0;  ///< that were applied: the optimizer's bias correction counts them
  int64_t skipped = 0;  ///< steps not applied because a loss or gradient was not finite
  int64_t skipped_in_a_row = 0;
  int64_t tokens = 0;         ///< read so far, all ranks
  int64_t targets = 0;        ///< trained on so far, all ranks
  std::vector<LogEntry> log;  ///< at most kLogLength entries, evenly thinned (trainer_state.json)
  int64_t log_every = 1;      ///< steps between entries of `log`

  static constexpr size_t kLogLength = 2000;
  void note(const LogEntry& entry);
};

}  // namespace kamerton::train
