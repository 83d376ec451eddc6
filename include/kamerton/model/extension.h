// SPDX-License-Identifier: Apache-2.0
// Where an adapter may change a decoder: at a linear module, at the embedding, beside the parts of
// a block, before the tokens of a document. Its parameters are put into the units that use them by
// whoever makes it, before parameters are placed.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "kamerton/tensor/param_unit.h"

namespace kamerton::model {

class LinearExtension;

/// A frozen weight in fewer bits than its parameter would take.
class PackedWeight {
 public:
  virtual ~PackedWeight() = default;
  /// x [N, in] -> x W^T [N, out], fresh memory; differentiable in x. The weight is never whole.
  virtual at::Tensor product(const at::Tensor& x_NI) const = 0;
  /// The weight [out, in], fp32.
  virtual at::Tensor whole() const = 0;
  virtual int64_t bytes() const = 0;
};

struct Linear {
  std::string name;  ///< the module: "model.layers.0.self_attn.q_proj"
  int unit = 0;      ///< index in Decoder::units()
  int64_t in_features = 0;
  int64_t out_features = 0;
  bool transposed = false;      ///< the weight is stored [in, out] (GPT-2's Conv1D)
  tensor::ParameterPtr weight;  ///< [out, in], or [in, out] when transposed
  tensor::ParameterPtr bias;    ///< null when there is none
  /// Instead of the weight's value: its bytes are in the unit then. Null: the weight is as it is.
  std::shared_ptr<PackedWeight> packed;
  std::shared_ptr<LinearExtension> extension;

  at::Tensor operator()(const at::Tensor& x_NI) const;
  /// On rows of chosen tokens (int64 [R]).
  at::Tensor on_rows(const at::Tensor& x_RI, const at::Tensor& token_R) const;
  /// Without the extension: fresh memory, may be changed in place when autograd allows.
  at::Tensor product(const at::Tensor& x_NI, bool with_bias = true) const;
};

/// What an adapter makes of a linear module (LoRA, IA3, OFT, ...).
class LinearExtension {
 public:
  virtual ~LinearExtension() = default;
  /// x [N, in] -> [N, out]; asks the module for its own product. token_R undefined: row n is token
  /// n of the micro-batch; else, as at an expert, row r is token_R[r].
  virtual at::Tensor apply(const Linear& base, const at::Tensor& x, const at::Tensor& token_R) = 0;
};

/// What an adapter makes of the embedding, within the use of unit "embed" (and of the head's unit).
class EmbeddingExtension {
 public:
  virtual ~EmbeddingExtension() = default;
  /// tokens [N] and their rows of the table [N, D], not scaled yet -> [N, D].
  virtual at::Tensor apply(const at::Tensor& tokens_N, const at::Tensor& rows_ND) = 0;
  /// The weight that the tied head computes with: `tied` itself, or one for this use.
  virtual tensor::ParameterPtr head(const tensor::ParameterPtr& tied) { return tied; }
  /// The head's input; its backward, which runs after that of a head() of its own, takes over that
  /// one's gradient.
  virtual at::Tensor before_head(const at::Tensor& hidden, const tensor::ParameterPtr& /*own*/) {
    return hidden;
  }
  /// Takes over the gradient of a head() of its own at once (the fused loss has computed it).
  virtual void fold_head(const tensor::ParameterPtr& /*own*/) {}
};

/// What an adapter adds beside a block's parts. h [N, D] is the residual stream before the part's
/// result `added` [N, D] comes to it.
class BlockExtension {
 public:
  virtual ~BlockExtension() = default;
  virtual at::Tensor after_attention(const at::Tensor& /*h*/, const at::Tensor& added) {
    return added;
  }
  virtual at::Tensor after_feed_forward(const at::Tensor& /*h*/, const at::Tensor& added) {
    return added;
  }
  /// Keys and values [P, kv_size] that every document attends to before its own (prefix tuning),
  /// keys not rotated; undefined: none.
  virtual at::Tensor prefix_keys() { return {}; }
  virtual at::Tensor prefix_values() { return {}; }
};

/// Rows put before every document, within the use of unit "embed" (prompt tuning).
class PromptExtension {
 public:
  virtual ~PromptExtension() = default;
  virtual at::Tensor rows() = 0;  ///< [P, D]
};

/// Everything that is not at a linear module.
struct Extensions {
  std::shared_ptr<EmbeddingExtension> embedding;
  std::vector<std::shared_ptr<BlockExtension>> blocks;  ///< empty, or one a layer
  std::shared_ptr<PromptExtension> prompt;
  /// Rows that a document gets before its own, in the residual stream (prompt) or as keys and
  /// values only (prefix); its positions start after them.
  int64_t lead_rows = 0;
};

}  // namespace kamerton::model
