// SPDX-License-Identifier: Apache-2.0
// One transformer block: its parameters by Hugging Face name, and its computation.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kamerton/model/decoder.h"

#include "block_context.h"
#include "feed_forward.h"

namespace kamerton::model {

class Block {
 public:
  /// Declares the parameters of layer `index` into `unit`.
  Block(const DecoderConfig& config, int64_t index, tensor::ParamUnit& unit);

  /// x [N, D] -> [N, D]; after `final_norm` when that is not null (the last block).
  at::Tensor forward(const at::Tensor& x_ND,
                     const BlockContext& context,
                     const tensor::ParameterPtr& final_norm) const;

  /// In order of use.
  std::vector<Linear*> linears();

 private:
  at::Tensor attention(const at::Tensor& normed_ND, const BlockContext& context) const;

  int64_t index_;
  double eps_;
  tensor::AttentionShape shape_;
  tensor::ParameterPtr input_norm_, post_norm_, q_norm_, k_norm_;
  Linear q_, k_, v_, o_;
  std::unique_ptr<FeedForward> feed_forward_;
};

}  // namespace kamerton::model
