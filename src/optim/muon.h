// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "update_rule.h"

namespace kamerton::optim {

/// Muon (Jordan et al. 2024; torch.optim.Muon): the averaged gradient of a block's matrix is made
/// orthogonal by five Newton-Schulz iterations, in fp32. Embeddings, head, norms and biases follow
/// AdamW. A matrix must be whole where it is made orthogonal: the matrices of a unit are shared out
/// among the ranks that it is cut over, each computes its own, and one reduce-scatter brings every
/// rank its part. Momentum is cut as the weights are.
class Muon final : public UpdateRule {
 public:
  explicit Muon(const OptimConfig& config) : config_(config) {}
  void update(const std::vector<UpdatePart>& parts, const UpdateStep& step) override;

  /// The second moment only in units that follow AdamW as a whole.
  static std::vector<StateKind> kinds(const OptimConfig& config);
  /// Both moments of a block's vectors.
  static std::vector<SharedKind> shared(const OptimConfig& config,
                                        const tensor::Parameter& parameter);

 private:
  void update_matrices(const UpdatePart& part, const UpdateStep& step) const;
  OptimConfig config_;
};

/// The nearest orthogonal matrix, about: singular values come near 1. [R, C] fp32.
at::Tensor orthogonalise(const at::Tensor& matrix);

/// Ranks that compute each of these matrices, [R, C] each: the heaviest first to the least busy.
std::vector<int> share_out(const std::vector<std::pair<int64_t, int64_t>>& shapes, int ranks);

}  // namespace kamerton::optim
