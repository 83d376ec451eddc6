// SPDX-License-Identifier: Apache-2.0
// Output head and cross entropy in one pass over chunks of rows: [tokens, vocabulary] never exists
// whole.
#pragma once

#include <cstdint>

#include "kamerton/tensor/param_unit.h"

namespace kamerton::tensor {

inline constexpr int64_t kIgnoredTarget = -100;

struct TokenLossOptions {
  double scale =
      1.0;  ///< multiplies the summed loss, commonly 1 / (target tokens of the whole step)
  at::Tensor weights_N;    ///< fp32 weight a token, undefined: all 1
  int64_t chunk_rows = 0;  ///< rows a chunk; 0: chosen from the vocabulary
  bool count_correct =
      false;  ///< also compare the arg max with the target (one more pass over the chunk)
  double logit_scale = 1.0;  ///< multiplies the logits (Granite, Cohere)
  double soft_cap = 0.0;     ///< logits = cap * tanh(logits / cap) (Gemma 2); 0: none
};

struct TokenLoss {
  at::Tensor loss;  ///< fp32 scalar: scale * sum of weight * (-log p(target)); carries the gradient
  double nll_sum = 0;   ///< unweighted, unscaled
  int64_t targets = 0;  ///< rows that had a target
  int64_t correct = 0;  ///< with count_correct
};

/// hidden [N, D], head weight [V, D], targets int64 [N] (kIgnoredTarget: no target; such rows cost
/// nothing). With grad mode on, d hidden and the head's gradient (added into head->accumulator())
/// are computed here at once, in the same pass; therefore `loss` must be a root of backward: the
/// gradient that reaches it must be 1 (sums of losses are fine; anything else throws
/// ErrorKind::Internal). Use token_log_probs for everything else. Throws ErrorKind::Data for a
/// target outside [0, V).
TokenLoss token_loss(const at::Tensor& hidden_ND,
                     const ParameterPtr& head,
                     const at::Tensor& targets_N,
                     const TokenLossOptions& options = {});

/// log p(target) of each row, fp32 [N]; 0 where the target is kIgnoredTarget. Differentiable:
/// backward computes the chunks again. For preference losses and scoring. Uses chunk_rows,
/// logit_scale and soft_cap of the options.
at::Tensor token_log_probs(const at::Tensor& hidden_ND,
                           const ParameterPtr& head,
                           const at::Tensor& targets_N,
                           const TokenLossOptions& options = {});

}  // namespace kamerton::tensor
