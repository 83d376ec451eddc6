// SPDX-License-Identifier: Apache-2.0
#include "kamerton/objective/replay_divergence.h"

#include <optional>
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

/// Of the rows' tokens, [M, D], without gradient.
at::Tensor ReplayDivergence::start_states(model::Decoder& model, const data::Batch& batch) {
  const at::NoGradGuard no_grad;
  std::optional<tuning::AdapterSwitch> off;
  if (adapter_ != nullptr) {
    off.emplace(*adapter_);
  }
  model::Decoder& start = start_ == nullptr ? model : *start_;
  return start.forward(to_tokens(batch, start.device()).rows).index_select(0, rows_M_);
}

/// The start model goes first: a model that is asked twice has the states of its last forward.
at::Tensor ReplayDivergence::loss(model::Decoder& model,
                                  const data::Batch& batch,
                                  const Shares& shares) {
  rows_M_ = replayed_rows(batch).to(model.device());
  started_MD_ =
      rows_M_.numel() == 0 && !options_.sharded ? at::Tensor() : start_states(model, batch);
  return TokenLoss::loss(model, batch, shares);
}

at::Tensor ReplayDivergence::beside(model::Decoder& model,
                                    const data::Batch& /*batch*/,
                                    const at::Tensor& hidden_ND,
                                    const Shares& shares) {
  const at::Tensor started_MD = std::exchange(started_MD_, {});
  if (!started_MD.defined()) {
    // The head is used as often as on other ranks, whose gradients are summed in that order.
    return model.logits_loss(hidden_ND, rows_M_, [](const at::Tensor& logits_MV, int64_t) {
      return logits_MV.sum() * 0.0;
    });
  }
  const auto apart =
      [&](const at::Tensor& logits_MV, int64_t begin, const tensor::LogitsOf& start_logits) {
        const at::Tensor started = started_MD.narrow(0, begin, logits_MV.size(0));
        const at::Tensor before = at::log_softmax(start_logits(started), 1);
        const at::Tensor parts = divergence(at::log_softmax(logits_MV, 1), before, 0.0);
        divergence_.sum += parts.detach().sum().item<double>();
        divergence_.count += static_cast<double>(started.size(0));
        return options_.weight * shares.target * parts.sum();
      };
  if (start_ == nullptr) {
    return model.logits_loss_beside_base(hidden_ND, rows_M_, apart);
  }
  at::Tensor result;
  start_->with_logits([&](const tensor::LogitsOf& start_logits) {
    result = model.logits_loss(hidden_ND, rows_M_, [&](const at::Tensor& logits, int64_t begin) {
      return apart(logits, begin, start_logits);
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
