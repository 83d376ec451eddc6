// SPDX-License-Identifier: Apache-2.0
#include "kamerton/train/loop.h"

#include <fmt/format.h>

#include "kamerton/core/error.h"
#include "kamerton/train/policy.h"
#include "kamerton/train/record_privacy.h"
#include "kamerton/train/signals.h"
#include "kamerton/train/step.h"

namespace kamerton::train {
namespace {

void note(Progress& progress, const StepReport& report) {
  ++progress.step;
  progress.updates += report.updates;
  progress.skipped += report.skipped ? 1 : 0;
  progress.skipped_in_a_row = report.skipped ? progress.skipped_in_a_row + 1 : 0;
  progress.tokens += report.tokens;
  progress.targets += report.targets;
  progress.note({progress.step, report.loss, report.grad_norm, report.lr});
}

/// All ranks reach the same verdict: the reports they judge are equal.
void refuse_divergence(const Parts& parts, const Progress& progress) {
  if (progress.skipped_in_a_row < parts.optim_config.max_skipped_steps) {
    return;
  }
  throw core::Error(
      core::ErrorKind::Numeric,
      {.where = "train.loop",
       .what = "loss or gradient is not finite, step after step",
       .got = fmt::format(
           "{} steps in a row, the last is step {}", progress.skipped_in_a_row, progress.step),
       .allowed = fmt::format("fewer than optim.max_skipped_steps = {}",
                              parts.optim_config.max_skipped_steps),
       .hint = "a lower optim.lr, more optim.warmup_steps, or kamerton data verify"});
}

StepReport take_step(Parts& parts, const Progress& progress, int64_t total_steps) {
  const int64_t step = progress.step + 1;
  const int64_t update = progress.updates + 1;
  return parts.privacy == nullptr ? run_step(parts, step, update, total_steps)
                                  : parts.privacy->run_step(parts, step, update, total_steps);
}

void save(Parts& parts, const Progress& progress) {
  try {
    parts.emit(parts.snapshots->save(progress));
  } catch (const core::Error& error) {
    if (parts.config.checkpoint.on_save_error == "abort") {
      throw;
    }
    parts.emit(SaveFailed{progress.step, error.what()});
  }
}

}  // namespace

Outcome run_loop(Parts& parts, Progress& progress, int64_t total_steps) {
  while (progress.step < total_steps) {
    const StepReport report = take_step(parts, progress, total_steps);
    note(progress, report);
    parts.emit(StepDone{progress.step,
                        total_steps,
                        report.loss,
                        report.grad_norm,
                        report.lr,
                        report.tokens,
                        report.targets,
                        report.skipped,
                        report.metrics});
    refuse_divergence(parts, progress);

    const bool stop_asked = parts.world.max(static_cast<int64_t>(stop_signal())) != 0;
    const Decision decision = decide(parts.config, progress.step, total_steps, stop_asked);
    std::optional<std::string> enough;
    if (decision.evaluate && parts.evaluate) {
      const EvalDone done = parts.evaluate(progress.step);
      parts.emit(done);
      enough = parts.judge ? parts.judge(done, progress) : std::nullopt;
    }
    if (decision.save || enough.has_value()) {
      save(parts, progress);
    }
    if (enough.has_value()) {
      parts.emit(Stopped{progress.step, *enough});
      return Outcome::Enough;
    }
    if (decision.stop) {
      parts.emit(Stopped{progress.step, "asked to stop by a signal"});
      return Outcome::Preempted;
    }
  }
  return Outcome::Finished;
}

}  // namespace kamerton::train
