// SPDX-License-Identifier: Apache-2.0
// The attention part of a block: projections, norms of q and k, rotation, attention, output.
#pragma once

#include <string>
#include <vector>

#include "kamerton/model/architecture.h"
#include "kamerton/model/decoder.h"

#include "block_context.h"
#include "norm.h"

namespace kamerton::model {

class Attention {
 public:
  /// Declares the parameters of layer `index` into `unit`; `at` is the layer's prefix.
  Attention(const DecoderConfig& config,
            int64_t index,
            const std::string& at,
            tensor::ParamUnit& unit);

  /// normed [N, D] -> [N, D], without the residual. `extension` may be null.
  at::Tensor forward(const at::Tensor& normed_ND,
                     const BlockContext& context,
                     BlockExtension* extension = nullptr) const;
  /// In order of use.
  std::vector<Linear*> linears();
  std::vector<const Norm*> norms() const { return {&q_norm_, &k_norm_}; }

 private:
  struct Projected {
    at::Tensor q, k, v;
  };
  /// Memory of their own, or views that nobody else reads.
  Projected project(const at::Tensor& normed_ND) const;
  at::Tensor normalised(const Norm& norm, const at::Tensor& x_NE) const;
  at::Tensor attended(const Projected& x, const BlockContext& context) const;

  int64_t index_;
  QkvLayout layout_;
  QkNorm qk_norm_;
  bool rotary_;
  bool local_;
  tensor::AttentionShape shape_;
  Linear q_, k_, v_, qkv_, output_;
  Norm q_norm_, k_norm_;
};

}  // namespace kamerton::model
