// SPDX-License-Identifier: Apache-2.0
// A decoder-only transformer over flat rows: no padding anywhere, documents one after the other.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kamerton/model/architecture.h"
#include "kamerton/model/config.h"
#include "kamerton/model/extension.h"
#include "kamerton/tensor/attention.h"
#include "kamerton/tensor/logits_loss.h"
#include "kamerton/tensor/param_unit.h"
#include "kamerton/tensor/token_loss.h"

namespace kamerton::model {

/// The value head's parameter: trained and saved with a run, no part of the model that it gives.
inline constexpr char kValueHead[] = "value_head.weight";

/// The tokens of a micro-batch: N rows, document d = rows [offsets[d], offsets[d + 1]).
struct Rows {
  at::Tensor tokens_N;     ///< int64, CPU or the model's device
  at::Tensor positions_N;  ///< int64, restart at 0 in each document (shifted by a cache's length
                           ///< when generating)
  std::vector<int64_t> document_offsets;  ///< D + 1 entries, first 0, last N

  /// One row after the other; positions from 0 in each.
  static Rows from_documents(const std::vector<std::vector<int64_t>>& documents);
};

/// Keys and values of earlier tokens; see generate.h.
class AttentionCache;

class Decoder {
 public:
  Decoder(DecoderConfig config, const ModelOptions& options);
  ~Decoder();
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  const DecoderConfig& config() const;
  /// What the options' dtype means for this checkpoint on this machine.
  at::ScalarType dtype() const;
  /// What the options' device means here: parameters must be placed on it, inputs are moved to it.
  at::Device device() const;

  /// "embed" (with learned positions), "layers.0", ..., "layers.L-1" (the final norm is in the last
  /// one), "head" (only when untied).
  std::vector<tensor::ParamUnit>& units();
  const std::vector<tensor::ParamUnit>& units() const;
  /// All parameters in unit order, adapters included.
  std::vector<tensor::ParameterPtr> parameters() const;
  /// The base model's own, in unit order, also those whose place in a unit packed bytes have taken.
  const std::vector<tensor::ParameterPtr>& base_parameters() const;
  /// The base model's parameter of this Hugging Face name, or null.
  tensor::ParameterPtr find_parameter(const std::string& name) const;
  /// Linear layers of the blocks (not the output head), in order of use.
  const std::vector<Linear*>& linears() const;
  Linear* find_linear(const std::string& name) const;

  /// RMSNorms and layer norms as modules: the names before ".weight", in order of use.
  std::vector<std::string> norms() const;

  void set_hooks(tensor::UnitHooks* hooks);  ///< not owned; null: none
  /// What an adapter changes apart from linear modules.
  Extensions& extensions();
  /// Gives every parameter its own memory and fills the base ones from the options' source
  /// (weights.h).
  void load_whole();

  /// [N, D], through the unit "embed", scaled as the model does; without learned positions, which
  /// forward adds.
  at::Tensor embed(const at::Tensor& tokens_N);
  /// Hidden states after the final norm, [N, D]. `embeddings_ND` instead of embed(rows.tokens_N)
  /// when defined (soft prompts). `cache`: keys and values are appended and attended to (grad mode
  /// must be off).
  at::Tensor forward(const Rows& rows,
                     const at::Tensor& embeddings_ND = {},
                     AttentionCache* cache = nullptr);
  /// Called with (layer, output of the layer) in forward; layer -1 is the embedding. For tests and
  /// tools.
  void set_observer(std::function<void(int64_t, const at::Tensor&)> observer);

  /// Of a mixture of experts: forwards from now on let the gradient of (strength * load-balancing
  /// loss) flow in their backward; 0, as at first: none.
  void set_router_strength(double strength);
  /// The load-balancing loss of the last forward, over all its layers and rows; 0 without experts.
  double router_loss() const;
  /// What the options or config.json weight that loss with in training; 0: not used.
  double router_coefficient() const;
  /// Called with (layer, logits [N, E]) by every router.
  void set_router_observer(std::function<void(int64_t, const at::Tensor&)> observer);

  /// fp32 [M, V] of chosen rows (a scorer: [M, 1]), differentiable; whole, so for few rows.
  at::Tensor logits(const at::Tensor& hidden_MD);
  /// scale * sum of -log p(target): see tensor::token_loss. A unit use of its own (the fused form
  /// of UnitHooks).
  tensor::TokenLoss loss(const at::Tensor& hidden_ND,
                         const at::Tensor& targets_N,
                         tensor::TokenLossOptions options = {});
  /// log p(target) a row, differentiable: see tensor::token_log_probs. `temperature` divides the
  /// logits.
  at::Tensor log_probs(const at::Tensor& hidden_ND,
                       const at::Tensor& targets_N,
                       double temperature = 1.0);
  /// With options.value_head: a value a row, fp32 [N], differentiable; 0 before it is trained.
  at::Tensor values(const at::Tensor& hidden_ND);
  /// How sharp the distribution at each target is: see tensor::log_collisions.
  at::Tensor log_collisions(const at::Tensor& hidden_ND, const at::Tensor& targets_N);
  /// Any loss on the logits of rows_M (int64): see tensor::logits_loss. A unit use of its own.
  at::Tensor logits_loss(const at::Tensor& hidden_ND,
                         const at::Tensor& rows_M,
                         const tensor::ChunkLoss& loss);
  /// The same, where `loss` compares with the base model, of which an adapter may have changed the
  /// head's weight: it is also given the way from hidden states to logits without that change.
  using ChunkLossBesideBase = std::function<at::Tensor(
      const at::Tensor& logits_MV, int64_t begin, const tensor::LogitsOf& base)>;
  at::Tensor logits_loss_beside_base(const at::Tensor& hidden_ND,
                                     const at::Tensor& rows_M,
                                     const ChunkLossBesideBase& loss);
  /// Runs `body` with the head readable, as one use of it without gradient: it may ask for logits
  /// of rows as often as it likes.
  void with_logits(const std::function<void(const tensor::LogitsOf&)>& body);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kamerton::model
