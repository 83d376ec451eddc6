// SPDX-License-Identifier: Apache-2.0
// The optimizer and the norm for tensors on a device: ATen operations with the formulas of
// update_kernels.h. They run on any device; the tests run them on the CPU beside the kernels.
#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

#include "update_rule.h"

namespace kamerton::optim {

/// adamw and sgd over parts that lie on one device.
class DeviceUpdate final : public UpdateRule {
 public:
  explicit DeviceUpdate(const OptimConfig& config) : config_(config) {}
  void update(const std::vector<UpdatePart>& parts, const UpdateStep& step) override;

 private:
  void update_adamw(const std::vector<UpdatePart>& parts, const UpdateStep& step) const;
  void update_sgd(const std::vector<UpdatePart>& parts, const UpdateStep& step) const;
  OptimConfig config_;
};

/// In double precision, the parts in order; one transfer to the host.
double device_sum_of_squares(const std::vector<at::Tensor>& parts);

}  // namespace kamerton::optim
