// SPDX-License-Identifier: Apache-2.0
// Holding the model near the one that the run started from, on replayed data.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "kamerton/objective/objective.h"

namespace kamerton::objective {

/// TokenLoss plus weight x KL(start || model) summed over the targets of replayed examples, divided
/// as the targets' loss is: by all targets of the step. Metric: replay_kl, a replayed target.
class ReplayDivergence final : public TokenLoss {
 public:
  struct Options {
    double weight = 0;
    bool sharded = false;  ///< the start model is cut over ranks: every rank asks it every time
    std::function<bool(int64_t)> is_replayed;  ///< of an example's index in the data set
  };
  /// `start` is not owned and not trained.
  ReplayDivergence(Options options, model::Decoder& start)
      : options_(std::move(options)), start_(start) {}

  std::vector<std::string> metric_names() const override;
  std::vector<MetricSum> take_metrics() override;

 private:
  at::Tensor beside(model::Decoder& model,
                    const data::Batch& batch,
                    const at::Tensor& hidden_ND,
                    const Shares& shares) override;
  at::Tensor replayed_rows(const data::Batch& batch) const;

  Options options_;
  model::Decoder& start_;
  MetricSum divergence_;
};

}  // namespace kamerton::objective
