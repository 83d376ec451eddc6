// SPDX-License-Identifier: Apache-2.0
// Functions of an output head's logits, chunk by chunk of rows: [tokens, vocabulary] never exists
// whole.
#pragma once

#include <cstdint>
#include <functional>

#include "kamerton/tensor/param_unit.h"
#include "kamerton/tensor/token_loss.h"

namespace kamerton::tensor {

/// Gives the logits of rows, hidden [M, D] -> fp32 [M, V], without gradient.
using LogitsOf = std::function<at::Tensor(const at::Tensor& hidden_MD)>;
LogitsOf logits_of(const ParameterPtr& head, const TokenLossOptions& options = {});

/// Called with the logits of rows [begin, begin + n) of those asked for, fp32 [n, V], a leaf that
/// wants a gradient when one is recorded: gives their part of the loss, a scalar.
using ChunkLoss = std::function<at::Tensor(const at::Tensor& logits_MV, int64_t begin)>;

/// The sum of `loss` over rows_M (int64, rows of hidden [N, D]). Gradients of hidden and head are
/// computed at once, so the result must be a root of backward, as that of token_loss; chunk_rows,
/// logit_scale and soft_cap of the options are used.
at::Tensor logits_loss(const at::Tensor& hidden_ND,
                       const ParameterPtr& head,
                       const at::Tensor& rows_M,
                       const ChunkLoss& loss,
                       const TokenLossOptions& options = {});

/// log of the sum over the vocabulary of p^2, fp32 [N]: a row's sharpness; 0 where targets_N is
/// kIgnoredTarget. Without gradient.
at::Tensor log_collisions(const at::Tensor& hidden_ND,
                          const ParameterPtr& head,
                          const at::Tensor& targets_N,
                          const TokenLossOptions& options = {});

}  // namespace kamerton::tensor
