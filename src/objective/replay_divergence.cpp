// SPDX-License-Identifier: Apache-2.0
#include "kamerton/objective/replay_divergence.h"

#include <utility>

#include <ATen/ATen.h>

#include "kamerton/objective/distill.h"

#include "documents.h"

namespace kamerton::objective {

/// int64 [M]: rows with a target, of replayed examples.
at::Tensor ReplayDivergence::replayed_rows(const data::Batch& batch) const {
  std::vector<int64_t> rows;
  for (size_t d = 0; d < document_count(batch); ++d) {
    if (!options_.is_replayed(batch.source_indices[d])) {
      continue;
    }
    for (int64_t n = batch.document_offsets[d]; n < batch.document_offsets[d + 1]; ++n) {
      if (batch.targets[static_cast<size_t>(n)] != data::kNoTarget) {
        rows.push_back(n);
      }
    }
  }
  return at::tensor(rows, at::kLong);
}

at::Tensor ReplayDivergence::beside(model::Decoder& model,
                                    const data::Batch& batch,
                                    const at::Tensor& hidden_ND,
                                    const Shares& shares) {
  const at::Tensor rows_M = replayed_rows(batch).to(model.device());
  if (rows_M.numel() == 0 && !options_.sharded) {
    // The head is used as often as on other ranks, whose gradients are summed in that order.
    return model.logits_loss(hidden_ND, rows_M, [](const at::Tensor& logits_MV, int64_t) {
      return logits_MV.sum() * 0.0;
    });
  }
  at::Tensor started_ND;
  {
    const at::NoGradGuard no_grad;
    started_ND = start_.forward(to_tokens(batch, start_.device()).rows);
  }
  at::Tensor result;
  start_.with_logits([&](const tensor::LogitsOf& start_logits) {
    result = model.logits_loss(hidden_ND, rows_M, [&](const at::Tensor& logits_MV, int64_t begin) {
      const at::Tensor rows = rows_M.narrow(0, begin, logits_MV.size(0));
      const at::Tensor before = at::log_softmax(start_logits(started_ND.index_select(0, rows)), 1);
      const at::Tensor apart = divergence(at::log_softmax(logits_MV, 1), before, 0.0);
      divergence_.sum += apart.detach().sum().item<double>();
      divergence_.count += static_cast<double>(rows.numel());
      return options_.weight * shares.target * apart.sum();
    });
  });
  return result;
}

std::vector<std::string> ReplayDivergence::metric_names() const {
  std::vector<std::string> names = TokenLoss::metric_names();
  names.emplace_back("replay_kl");
  return names;
}

std::vector<MetricSum> ReplayDivergence::take_metrics() {
  std::vector<MetricSum> sums = TokenLoss::take_metrics();
  sums.push_back(std::exchange(divergence_, {}));
  return sums;
}

}  // namespace kamerton::objective
