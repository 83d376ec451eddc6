// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "update_rule.h"

namespace kamerton::optim {

/// AdamW whose moments are 8-bit codes with a scale for every 256 elements of a parameter, as
/// bitsandbytes' AdamW8bit (arXiv 2110.02861): moments are read, updated and applied in fp32, then
/// rounded to the nearest (its CUDA kernel also keeps the sign and decays last).
/// Unlike there small parameters are kept so, too. A quarter of AdamW's state.
class Adamw8 final : public UpdateRule {
 public:
  explicit Adamw8(const OptimConfig& config) : config_(config) {}
  void update(const std::vector<UpdatePart>& parts, const UpdateStep& step) override;

  static std::vector<StateKind> kinds(const OptimConfig& config);

 private:
  OptimConfig config_;
};

}  // namespace kamerton::optim
