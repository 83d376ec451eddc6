// SPDX-License-Identifier: Apache-2.0
// AdaLoRA's budget (arXiv 2303.10512): matrices B diag(e) A are trained at a large rank, and
// triplets (a column of B, an element of e, a row of A) that matter least are pruned, over all
// matrices together, down to a mean rank.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "kamerton/tensor/param_unit.h"

namespace kamerton::optim {

/// Of one matrix, in one unit. R triplets.
struct Triplets {
  tensor::ParameterPtr a;  ///< [R, I]
  tensor::ParameterPtr b;  ///< [O, R]
  tensor::ParameterPtr e;  ///< [R, 1]

  int64_t rank() const { return a->shape[0]; }
};

/// Steps count from 1. Names and meanings are PEFT's (RankAllocator).
struct RankBudget {
  std::vector<Triplets> matrices;
  int64_t target_rank = 8;     ///< at the end, on average over the matrices
  int64_t total_steps = 1;     ///< of the run
  int64_t first_steps = 0;     ///< tinit: nothing is pruned
  int64_t last_steps = 0;      ///< tfinal: what is pruned stays as it is
  int64_t interval = 1;        ///< deltaT: steps from one pruning to the next
  double beta1 = 0.85;         ///< of the moving average of sensitivity
  double beta2 = 0.85;         ///< of the moving average of its uncertainty
  double orthogonality = 0.5;  ///< strength of the mean of |A A' - 1| and |B' B - 1| (Frobenius)

  int64_t all_triplets() const;
  /// Whether the step still changes how much each element matters.
  bool learns(int64_t step) const { return step < total_steps - last_steps; }
  /// How many triplets the step leaves; none: it prunes nothing.
  std::optional<int64_t> triplets_after(int64_t step) const;
};

/// What is pruned of so many scores: those up to it. Minus infinity when all are kept.
double pruning_threshold(std::vector<double> scores, int64_t kept);

}  // namespace kamerton::optim
