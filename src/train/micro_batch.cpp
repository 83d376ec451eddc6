// SPDX-License-Identifier: Apache-2.0
#include "micro_batch.h"

#include <algorithm>

#include <ATen/ATen.h>

namespace kamerton::train {
namespace {

/// A token's name for dropout and noise: the same on any rank, in any packing.
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

}  // namespace

double forward_backward(Parts& parts, const data::Batch& batch, const objective::Shares& shares) {
  if (parts.dropout != nullptr) {
    parts.dropout->keys_N = token_keys(batch);
  }
  if (parts.noise != nullptr) {
    parts.noise->begin(token_keys(batch), batch.document_offsets);
  }
  const at::Tensor loss = parts.objective.loss(parts.model, batch, shares);
  loss.backward();
  if (parts.dropout != nullptr) {
    parts.dropout->keys_N.reset();  // what comes before the next micro-batch drops nothing
  }
  if (parts.noise != nullptr) {
    parts.noise->end();
  }
  return loss.item<double>();
}

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

void append_method_metrics(const Parts& parts,
                           const optim::GradientReport& gradient,
                           std::vector<std::pair<std::string, double>>& metrics) {
  if (parts.optim_config.l2 > 0.0 || parts.optim_config.ewc > 0.0) {
    metrics.emplace_back("keep_penalty", gradient.penalty);
  }
  if (const std::optional<int64_t> triplets = parts.parameters.triplets_left()) {
    metrics.emplace_back("orthogonality", gradient.orthogonality);
    metrics.emplace_back("triplets", static_cast<double>(*triplets));
  }
}

}  // namespace kamerton::train
