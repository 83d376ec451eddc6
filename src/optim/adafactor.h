// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "update_rule.h"

namespace kamerton::optim {

/// Adafactor (arXiv 1804.04235) as transformers has it, with the run's learning rate (relative_step
/// false) and without a first moment: of a matrix [.., C] only the means of squared gradients over
/// rows and columns are kept, the same on every rank. Rows and columns are summed over shards in
/// double precision.
class Adafactor final : public UpdateRule {
 public:
  explicit Adafactor(const OptimConfig& config) : config_(config) {}
  void update(const std::vector<UpdatePart>& parts, const UpdateStep& step) override;

  /// exp_avg_sq_row and exp_avg_sq_col of a matrix, exp_avg_sq of a vector.
  static std::vector<SharedKind> shared(const OptimConfig& config,
                                        const tensor::Parameter& parameter);

 private:
  OptimConfig config_;
};

}  // namespace kamerton::optim
