// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "update_kernels.h"
#include "update_rule.h"

namespace kamerton::optim {

/// What AdamW's kernel needs to know for elements of one treatment.
AdamwFactors adamw_factors(const OptimConfig& config,
                           const UpdateStep& step,
                           const Treatment& treatment);

/// arXiv 1711.05101, as torch.optim.AdamW. State: exp_avg, exp_avg_sq.
class Adamw final : public UpdateRule {
 public:
  explicit Adamw(const OptimConfig& config) : config_(config) {}
  void update(const std::vector<UpdatePart>& parts, const UpdateStep& step) override;

 private:
  OptimConfig config_;
};

/// As torch.optim.SGD. State: momentum, when there is any.
class Sgd final : public UpdateRule {
 public:
  explicit Sgd(const OptimConfig& config) : config_(config) {}
  void update(const std::vector<UpdatePart>& parts, const UpdateStep& step) override;

 private:
  OptimConfig config_;
};

}  // namespace kamerton::optim
