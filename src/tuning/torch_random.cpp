// SPDX-License-Identifier: Apache-2.0
#include "torch_random.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

namespace kamerton::tuning {

TorchRandom::TorchRandom(uint64_t seed) : generator_(at::detail::createCPUGenerator(seed)) {}

at::Tensor TorchRandom::uniform(std::vector<int64_t> shape, double bound) {
  const at::NoGradGuard no_grad;
  return at::empty(shape, at::kFloat).uniform_(-bound, bound, generator_);
}

at::Tensor TorchRandom::permutation(int64_t n, int64_t count) {
  return at::randperm(n, generator_, at::TensorOptions().dtype(at::kLong))
      .narrow(0, 0, count)
      .clone();
}

}  // namespace kamerton::tuning
