// SPDX-License-Identifier: Apache-2.0
// Which expert computes which token, and the way of the rows there and back. N tokens, E experts,
// K choices a token, M = N K rows sorted by expert. Differentiable (first order), deterministic.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

namespace kamerton::tensor {

/// Sums over the routers of one forward pass, for the load-balancing loss of Switch Transformers
/// (arXiv 2101.03961, eq. 4-6) as transformers computes it over all layers together:
///   loss = E sum_e (assignments of e / rows) (probability of e / rows).
/// Filled during the forward pass, closed at its end; backward reads the totals, so that no graph
/// has to connect the layers. Recomputed blocks find it closed and do not count twice.
class RouterTotals {
 public:
  /// strength: what the gradient of the loss is multiplied by.
  RouterTotals(int64_t experts, double strength);

  void add(const at::Tensor& assignments_E, const at::Tensor& probabilities_E, int64_t rows);
  void close() { closed_ = true; }
  /// The loss; 0 when no router has been counted.
  double loss() const;
  /// d(strength loss) / d(probability of e in any row), fp32 [E].
  at::Tensor gradient() const;
  double strength() const { return strength_; }

 private:
  int64_t experts_;
  double strength_;
  bool closed_ = false;
  int64_t rows_ = 0;
  at::Tensor assignments_E_;    ///< fp64
  at::Tensor probabilities_E_;  ///< fp64
};

/// Softmax over experts, the K largest of each row.
struct Routing {
  at::Tensor weights_NK;         ///< fp32, differentiable
  at::Tensor token_M;            ///< int64: the token of each sorted row
  at::Tensor place_NK;           ///< int64: where token n's k-th choice stands among the M rows
  std::vector<int64_t> count_E;  ///< rows of each expert; their sum is M
};

/// logits [N, E], any floating type; the softmax is fp32. normalised: the K weights of a row sum to
/// 1. totals may be null: then nothing is counted and no loss added.
Routing route(const at::Tensor& logits_NE,
              int64_t choices,
              bool normalised,
              const std::shared_ptr<RouterTotals>& totals);

/// The rows of x [N, D] in the order of the experts: [M, D].
at::Tensor dispatch(const at::Tensor& x_ND, const Routing& routing);
/// Every token's K results weighted and added: y [M, D] -> [N, D], in y's type.
at::Tensor combine(const at::Tensor& y_MD, const Routing& routing);

}  // namespace kamerton::tensor
