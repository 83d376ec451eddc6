// SPDX-License-Identifier: Apache-2.0
#include "kamerton/train/policy.h"

namespace kamerton::train {

Decision decide(const TrainConfig& config, int64_t step, int64_t total_steps, bool stop_asked) {
  const bool last = step >= total_steps;
  const auto due = [step](int64_t every) { return every > 0 && step % every == 0; };
  Decision decision;
  decision.stop = stop_asked && !last;
  decision.save = last || decision.stop || due(config.checkpoint.every);
  decision.evaluate = !decision.stop && (last || due(config.eval_every));
  return decision;
}

}  // namespace kamerton::train
