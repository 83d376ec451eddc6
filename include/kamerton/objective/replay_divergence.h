// SPDX-License-Identifier: Apache-2.0
// Holding the model near the one that the run started from, on replayed data.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "kamerton/objective/objective.h"
#include "kamerton/tuning/adapter.h"

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
  /// A start model of its own, not trained; not owned.
  ReplayDivergence(Options options, model::Decoder& start)
      : options_(std::move(options)), start_(&start) {}
  /// The start model is the trained one with its adapter off; not owned.
  ReplayDivergence(Options options, tuning::Adapter& adapter)
      : options_(std::move(options)), adapter_(&adapter) {}

  at::Tensor loss(model::Decoder& model, const data::Batch& batch, const Shares& shares) override;
  std::vector<std::string> metric_names() const override;
  std::vector<MetricSum> take_metrics() override;

 private:
  at::Tensor beside(model::Decoder& model,
                    const data::Batch& batch,
                    const at::Tensor& hidden_ND,
                    const Shares& shares) override;
  at::Tensor replayed_rows(const data::Batch& batch) const;
  at::Tensor start_states(model::Decoder& model, const data::Batch& batch);

  Options options_;
  model::Decoder* start_ = nullptr;  ///< null: adapter_ is switched off
  tuning::Adapter* adapter_ = nullptr;
  at::Tensor rows_M_;      ///< of the micro-batch under way
  at::Tensor started_MD_;  ///< what the start model's head is given there; undefined: not asked
  MetricSum divergence_;
};

}  // namespace kamerton::objective
