// SPDX-License-Identifier: Apache-2.0
// The feed-forward part of a block: one interface, whatever is behind it.
#pragma once

#include <memory>
#include <vector>

#include "kamerton/model/architecture.h"
#include "kamerton/model/decoder.h"

#include "block_context.h"

namespace kamerton::model {

class FeedForward {
 public:
  virtual ~FeedForward() = default;
  /// normed [N, D] -> [N, D], without the residual. Called again by a checkpointed block's
  /// backward: what is reported outside of the result must not be counted twice.
  virtual at::Tensor forward(const at::Tensor& normed_ND, const BlockContext& context) const = 0;
  /// In order of use; stay where they are as long as this object lives.
  virtual std::vector<Linear*> linears() = 0;
};

/// Declares the parameters of layer `index` into `unit` and chooses by the configuration.
std::unique_ptr<FeedForward> make_feed_forward(const DecoderConfig& config,
                                               int64_t index,
                                               tensor::ParamUnit& unit);

}  // namespace kamerton::model
