// SPDX-License-Identifier: Apache-2.0
// What is minimised.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "kamerton/core/json.h"
#include "kamerton/data/example.h"
#include "kamerton/model/decoder.h"

namespace kamerton::objective {

/// The tensors of a micro-batch; what the model reads. All [N], N tokens of all documents in a row,
/// int64.
struct Tokens {
  model::Rows rows;
  at::Tensor targets_N;  ///< -100 where nothing is trained
};

/// Copies a batch into tensors on the model's device.
Tokens to_tokens(const data::Batch& batch, at::Device device = at::kCPU);

/// What the terms of a loss are counted in. Summed over all micro-batches and ranks of a step, it
/// is what they are divided by.
struct Counts {
  int64_t targets = 0;     ///< tokens with a target
  int64_t pairs = 0;       ///< pairs of answers; judged or generated answers
  int64_t likelihood = 0;  ///< tokens of the likelihood term beside a comparison

  Counts& operator+=(const Counts& other);
};

/// What one of each counts in the step's loss: the reciprocals of the step's Counts.
struct Shares {
  double target = 0;
  double pair = 0;
  double likelihood = 0;

  /// Of the whole step; a count of 0 has the share 1.
  static Shares of(const Counts& step);
};

/// A sum over what a rank has seen, and over how many: ranks add both, then divide.
struct MetricSum {
  double sum = 0;
  double count = 0;
};

/// Where losses are asked for.
struct Phase {
  bool held_out = false;  ///< evaluation: nothing is learned
  int64_t step = 0;       ///< of training, from 1
};

/// What a kind of tuning minimises.
class Objective {
 public:
  virtual ~Objective() = default;
  /// What the losses of a step, or of the held-out examples, are taken of: by default the
  /// micro-batches as they come. A method that has to look at all of them first (KTO) does so here,
  /// one that learns from its own answers generates them. Collective: every rank has as many
  /// micro-batches and gets as many.
  virtual std::vector<data::Batch> prepare(model::Decoder& /*model*/,
                                           std::vector<data::Batch> batches,
                                           const Phase& /*phase*/) {
    return batches;
  }
  /// How often the parameters are updated with what prepare() gave.
  virtual int64_t updates() const { return 1; }
  /// Whether the rank's micro-batch number `batch` belongs to update `update`, both from 0. The
  /// first and every other update has one at least.
  virtual bool belongs(size_t /*batch*/, int64_t /*update*/) const { return true; }
  /// What a micro-batch adds to the step's counts.
  virtual Counts counts(const data::Batch& batch) const { return {.targets = batch.target_count}; }
  /// The micro-batch's part of the step's loss, a scalar that is the root of backward. With shares
  /// of the whole step, loss and gradients are sums over micro-batches and ranks, however unevenly
  /// the targets fall.
  virtual at::Tensor loss(model::Decoder& model,
                          const data::Batch& batch,
                          const Shares& shares) = 0;
  /// What a resumed run has to know: an object, empty for most. Equal on every rank.
  virtual core::Json state() const;
  virtual void load_state(const core::Json& /*state*/) {}
  /// What is reported beside the loss, in a fixed order.
  virtual std::vector<std::string> metric_names() const { return {}; }
  /// This rank's sums since the last call, in that order.
  virtual std::vector<MetricSum> take_metrics() { return {}; }
};

/// Cross-entropy on the batch's targets: supervised and instruction tuning, and continued
/// pre-training (all tokens are targets).
class TokenLoss : public Objective {
 public:
  /// Experts: plus the load-balancing loss of their routers, weighted by the model's coefficient
  /// and by the micro-batch's share of the targets.
  at::Tensor loss(model::Decoder& model, const data::Batch& batch, const Shares& shares) override;
  /// router_loss, unweighted, where it is trained.
  std::vector<std::string> metric_names() const override;
  std::vector<MetricSum> take_metrics() override;

 protected:
  /// A further term on the same hidden states; undefined: none, on every rank.
  virtual at::Tensor beside(model::Decoder& /*model*/,
                            const data::Batch& /*batch*/,
                            const at::Tensor& /*hidden_ND*/,
                            const Shares& /*shares*/) {
    return {};
  }

 private:
  MetricSum routers_;
  bool trains_routers_ = false;
};

}  // namespace kamerton::objective
