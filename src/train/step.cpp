// SPDX-License-Identifier: Apache-2.0
#include "kamerton/train/step.h"

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

/// Forward and backward of one micro-batch; gradients stay with their owner. Returns the loss (sum
/// / global targets).
double forward_backward(Parts& parts, const data::Batch& batch, double scale) {
  if (parts.dropout != nullptr) {
    parts.dropout->keys_N = token_keys(batch);
  }
  const at::Tensor loss = parts.objective.loss(parts.model, batch, scale);
  loss.backward();
  return loss.item<double>();
}

}  // namespace

StepReport run_step(Parts& parts, int64_t step, int64_t update_number, int64_t total_steps) {
  const bool poisoned = parts.begin_step && parts.begin_step(step);
  const std::vector<data::Batch> micro_batches = parts.batches.next();

  int64_t counts[2] = {0, 0};
  for (const data::Batch& batch : micro_batches) {
    counts[0] += batch.target_count;
    counts[1] += static_cast<int64_t>(batch.tokens.size());
  }
  // One global denominator for loss and gradient, however unevenly the targets fall.
  StepReport report{.targets = parts.world.sum(counts[0]), .tokens = parts.world.sum(counts[1])};
  const double scale = poisoned ? std::numeric_limits<double>::quiet_NaN()
                                : 1.0 / static_cast<double>(std::max<int64_t>(report.targets, 1));

  double loss = 0;
  for (size_t i = 0; i < micro_batches.size(); ++i) {
    parts.parameters.begin_micro_batch(i + 1 == micro_batches.size());
    loss += forward_backward(parts, micro_batches[i], scale);
  }
  report.loss = parts.world.sum(loss);

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
