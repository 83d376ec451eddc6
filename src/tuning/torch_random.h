// SPDX-License-Identifier: Apache-2.0
// torch.Generator on the CPU: adapters whose fixed parts are only known by a seed need its numbers.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

namespace kamerton::tuning {

class TorchRandom {
 public:
  explicit TorchRandom(uint64_t seed);
  /// Uniform in +-bound, fp32.
  at::Tensor uniform(std::vector<int64_t> shape, double bound);
  /// The first `count` of torch.randperm(n).
  at::Tensor permutation(int64_t n, int64_t count);

 private:
  at::Generator generator_;
};

}  // namespace kamerton::tuning
