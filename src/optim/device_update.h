// SPDX-License-Identifier: Apache-2.0
// The optimizer and the norm for tensors on a device: ATen operations with the formulas of
// update_kernels.h. They run on any device; the tests run them on the CPU beside the kernels.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "kamerton/optim/config.h"

#include "flat_layout.h"

namespace kamerton::optim {

/// One unit's part; element 0 is element `begin` of the flat buffer. fp32 but for `low`.
struct DevicePart {
  int64_t begin = 0;
  at::Tensor param;
  at::Tensor low;   ///< the compute copy, bf16; undefined: param is its own
  at::Tensor grad;  ///< its contents are used up
  std::vector<at::Tensor> moments;
  const std::vector<DecaySegment>* segments = nullptr;
};

struct DeviceStep {
  int64_t number = 1;  ///< of the update, from 1
  double lr = 0.0;
  double clip = 1.0;
};

/// Applies config.algorithm to all parts, which lie on one device.
void update_parts(const std::vector<DevicePart>& parts,
                  const OptimConfig& config,
                  const DeviceStep& step);

/// In double precision, the parts in order; one transfer to the host.
double device_sum_of_squares(const std::vector<at::Tensor>& parts);

}  // namespace kamerton::optim
