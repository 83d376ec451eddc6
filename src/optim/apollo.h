// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "update_rule.h"

namespace kamerton::optim {

/// APOLLO (Zhu et al., arXiv 2412.05270; apollo-torch): of the gradient G of a block's matrix only
/// a random projection on `apollo_rank` dimensions has AdamW's moments; by how much AdamW would
/// stretch each channel of the projection (or all of it: APOLLO-Mini), G itself is stretched, and
/// its norm may grow by 1 % an update. Embeddings, head, norms and biases follow AdamW.
///
/// The moments, [r, max(R, C)] of a matrix [R, C], are the same on every rank; each projects what
/// it holds of G and one sum over the ranks gives the whole projection. Random matrices are never
/// kept.
class Apollo final : public UpdateRule {
 public:
  explicit Apollo(const OptimConfig& config) : config_(config) {}
  void update(const std::vector<UpdatePart>& parts, const UpdateStep& step) override;

  /// AdamW's moments in units outside of blocks.
  static std::vector<StateKind> kinds(const OptimConfig& config);
  /// Moments of the projection and the last norm of a block's matrix, or moments of its vector.
  static std::vector<SharedKind> shared(const OptimConfig& config,
                                        const tensor::Parameter& parameter);

 private:
  OptimConfig config_;
};

/// Columns [begin, begin + count) of the random matrix [rank, width] of this parameter in this
/// period: normal with variance 1 / rank.
at::Tensor random_projection(
    const std::string& name, int64_t period, int64_t rank, int64_t begin, int64_t count);

}  // namespace kamerton::optim
