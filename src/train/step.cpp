// SPDX-License-Identifier: Apache-2.0
#include "kamerton/train/step.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <ATen/ATen.h>

#include "kamerton/optim/schedule.h"

namespace kamerton::train {
namespace {

/// A token's name for dropout: the same on any rank, in any packing.
at::Tensor token_keys(const data::Batch& batch) {
  at::Tensor keys_N = at::empty({static_cast<int64_t>(batch.tokens.size())}, at::kLong);
  auto* keys = keys_N.mutable_data_ptr<int64_t>();
  for (size_t document = 0; document + 1 < batch.document_offsets.size(); ++document) {
    for (int64_t n = batch.document_offsets[document]; n < batch.document_offsets[document + 1];
         ++n) {
      keys[n] =
          batch.sample_ids[document] * (int64_t{1} << 24) + batch.positions[static_cast<size_t>(n)];
    }
  }
  return keys_N;
}

/// Forward and backward of one micro-batch; gradients stay with their owner. Returns its part of
/// the loss.
double forward_backward(Parts& parts, const data::Batch& batch, const objective::Shares& shares) {
  if (parts.dropout != nullptr) {
    parts.dropout->keys_N = token_keys(batch);
  }
  const at::Tensor loss = parts.objective.loss(parts.model, batch, shares);
  loss.backward();
  return loss.item<double>();
}

/// Over all micro-batches and ranks.
struct StepCounts {
  objective::Counts loss;
  int64_t targets = 0;
  int64_t tokens = 0;
};

StepCounts count(const Parts& parts, const std::vector<data::Batch>& micro_batches) {
  StepCounts mine;
  for (const data::Batch& batch : micro_batches) {
    mine.loss += parts.objective.counts(batch);
    mine.targets += batch.target_count;
    mine.tokens += static_cast<int64_t>(batch.tokens.size());
  }
  const comm::Group& world = parts.world;
  return {.loss = {.targets = world.sum(mine.loss.targets),
                   .pairs = world.sum(mine.loss.pairs),
                   .likelihood = world.sum(mine.loss.likelihood)},
          .targets = world.sum(mine.targets),
          .tokens = world.sum(mine.tokens)};
}

/// Means over what all ranks have seen since the last step.
std::vector<std::pair<std::string, double>> reduce_metrics(Parts& parts) {
  std::vector<std::pair<std::string, double>> means;
  const std::vector<std::string> names = parts.objective.metric_names();
  const std::vector<objective::MetricSum> mine = parts.objective.take_metrics();
  for (size_t i = 0; i < names.size(); ++i) {
    const double sum = parts.world.sum(mine[i].sum);
    means.emplace_back(names[i], sum / std::max(parts.world.sum(mine[i].count), 1.0));
  }
  return means;
}

}  // namespace

StepReport run_step(Parts& parts, int64_t step, int64_t update_number, int64_t total_steps) {
  const bool poisoned = parts.begin_step && parts.begin_step(step);
  const std::vector<data::Batch> micro_batches = parts.batches.next();
  const StepCounts counts = count(parts, micro_batches);
  StepReport report{.targets = counts.targets, .tokens = counts.tokens, .metrics = {}};
  objective::Shares shares = objective::Shares::of(counts.loss);
  if (poisoned) {
    shares.target = shares.pair = std::numeric_limits<double>::quiet_NaN();
  }

  double loss = 0;
  for (size_t i = 0; i < micro_batches.size(); ++i) {
    parts.parameters.begin_micro_batch(i + 1 == micro_batches.size());
    loss += forward_backward(parts, micro_batches[i], shares);
  }
  report.loss = parts.world.sum(loss);
  report.metrics = reduce_metrics(parts);

  const optim::GradientReport gradient =
      parts.parameters.finish_gradients(parts.optim_config.max_grad_norm, std::isfinite(loss));
  report.grad_norm = gradient.norm;
  report.lr = optim::learning_rate(parts.optim_config, step - 1, total_steps);
  report.skipped = !gradient.finite;  // agreed by all ranks
  if (gradient.finite) {
    parts.parameters.update(update_number, report.lr);
  }
  return report;
}

}  // namespace kamerton::train
