// SPDX-License-Identifier: Apache-2.0
// One transformer block: its parameters by Hugging Face name, and its computation.
#pragma once

#include <memory>
#include <vector>

#include "kamerton/model/decoder.h"

#include "attention.h"
#include "block_context.h"
#include "feed_forward.h"
#include "norm.h"

namespace kamerton::model {

class Block {
 public:
  /// Declares the parameters of layer `index` into `unit`.
  Block(const DecoderConfig& config, int64_t index, tensor::ParamUnit& unit);

  /// x [N, D] -> [N, D]; after `final_norm` when there is one (the last block).
  at::Tensor forward(const at::Tensor& x_ND,
                     const BlockContext& context,
                     const Norm& final_norm,
                     BlockExtension* extension = nullptr) const;

  /// In order of use.
  std::vector<Linear*> linears();
  std::vector<const Norm*> norms() const;

 private:
  at::Tensor attended(const at::Tensor& x_ND,
                      const BlockContext& context,
                      BlockExtension* extension) const;
  at::Tensor fed_forward(const at::Tensor& h_ND,
                         const at::Tensor& normed_ND,
                         const BlockContext& context,
                         BlockExtension* extension) const;

  bool parallel_;
  double residual_scale_;
  // In the order of declaration: input norm, attention, the other norms, feed-forward part.
  Norm attention_norm_;
  Attention attention_;
  Norm attention_out_norm_, feed_forward_norm_, feed_forward_out_norm_;
  std::unique_ptr<FeedForward> feed_forward_;
};

/// "model.layers.<index>."
std::string layer_prefix(const DecoderConfig& config, int64_t index);

}  // namespace kamerton::model
