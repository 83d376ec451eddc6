// SPDX-License-Identifier: Apache-2.0
// What is minimised.
#pragma once

#include <ATen/core/Tensor.h>

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

/// A kind of tuning. Open set: SFT and raw text now, preferences later.
class Objective {
 public:
  virtual ~Objective() = default;
  /// The loss of a micro-batch: (sum over its targets) * scale, a scalar that is the root of
  /// backward. scale is 1 / (targets of the whole step on all ranks), so that gradients are sums
  /// over micro-batches and ranks.
  virtual at::Tensor loss(model::Decoder& model, const data::Batch& batch, double scale) = 0;
};

/// Cross-entropy on the batch's targets: supervised and instruction tuning, and continued
/// pre-training (all tokens are targets).
class TokenLoss : public Objective {
 public:
  at::Tensor loss(model::Decoder& model, const data::Batch& batch, double scale) override;
};

}  // namespace kamerton::objective
