// SPDX-License-Identifier: Apache-2.0
#include "kamerton/train/step.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <ATen/ATen.h>

#include "kamerton/optim/schedule.h"

#include "micro_batch.h"

namespace kamerton::train {
namespace {

/// Over all micro-batches and ranks.
struct StepCounts {
  objective::Counts loss;
  int64_t targets = 0;
  int64_t tokens = 0;
};

StepCounts count(const Parts& parts, const std::vector<const data::Batch*>& micro_batches) {
  StepCounts mine;
  for (const data::Batch* batch : micro_batches) {
    mine.loss += parts.objective.counts(*batch);
    mine.targets += batch->target_count;
    mine.tokens += static_cast<int64_t>(batch->tokens.size());
  }
  const comm::Group& world = parts.world;
  return {.loss = {.targets = world.sum(mine.loss.targets),
                   .pairs = world.sum(mine.loss.pairs),
                   .likelihood = world.sum(mine.loss.likelihood)},
          .targets = world.sum(mine.targets),
          .tokens = world.sum(mine.tokens)};
}

/// The micro-batches of one update.
std::vector<const data::Batch*> of_update(const Parts& parts,
                                          const std::vector<data::Batch>& batches,
                                          int64_t update) {
  std::vector<const data::Batch*> chosen;
  for (size_t i = 0; i < batches.size(); ++i) {
    if (parts.objective.belongs(i, update)) {
      chosen.push_back(&batches[i]);
    }
  }
  return chosen;
}

/// Forward and backward of the micro-batches, then one update, unless something is not finite.
optim::GradientReport update_once(Parts& parts,
                                  const std::vector<const data::Batch*>& batches,
                                  const objective::Shares& shares,
                                  int64_t update_number,
                                  int64_t step,
                                  StepReport& report) {
  double loss = 0;
  for (size_t i = 0; i < batches.size(); ++i) {
    parts.parameters.begin_micro_batch(i + 1 == batches.size());
    loss += forward_backward(parts, *batches[i], shares);
  }
  const optim::GradientReport gradient =
      parts.parameters.finish_gradients(parts.optim_config.max_grad_norm, std::isfinite(loss));
  report.loss = parts.world.sum(loss);
  report.grad_norm = gradient.norm;
  if (gradient.finite) {  // agreed by all ranks
    parts.parameters.update(update_number, report.lr, step);
    ++report.updates;
  } else {
    report.skipped = true;
  }
  return gradient;
}

}  // namespace

StepReport run_step(Parts& parts, int64_t step, int64_t update_number, int64_t total_steps) {
  const bool poisoned = parts.begin_step && parts.begin_step(step);
  const std::vector<data::Batch> batches =
      parts.objective.prepare(parts.model, parts.batches.next(), {.step = step});
  StepReport report{.metrics = {}};
  report.lr = optim::learning_rate(parts.optim_config, step - 1, total_steps);
  optim::GradientReport gradient;
  for (int64_t u = 0; u < parts.objective.updates() && !report.skipped; ++u) {
    const std::vector<const data::Batch*> chosen = of_update(parts, batches, u);
    const StepCounts counts = count(parts, chosen);
    objective::Shares shares = objective::Shares::of(counts.loss);
    if (poisoned) {
      shares.target = shares.pair = std::numeric_limits<double>::quiet_NaN();
    }
    report.tokens += counts.tokens;
    report.targets += counts.targets;
    gradient = update_once(parts, chosen, shares, update_number + report.updates, step, report);
  }
  report.metrics = reduce_metrics(parts);
  append_method_metrics(parts, gradient, report.metrics);
  return report;
}

}  // namespace kamerton::train
