// SPDX-License-Identifier: Apache-2.0
// Tensors of several tasks made one: task arithmetic (arXiv 2212.04089), TIES (2306.01708), DARE
// (2311.03099). As PEFT's merge_utils.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace kamerton::tuning {

struct TaskOptions {
  std::string how;  ///< linear, ties, dare_linear, dare_ties, magnitude_prune
  double density = 1.0;
  bool by_frequency = false;
  uint64_t seed = 0;
  std::string name;  ///< keys the random choice
};

/// One tensor from equal-shaped ones.
at::Tensor combine_tasks(const std::vector<at::Tensor>& tensors,
                         const std::vector<double>& weights,
                         const TaskOptions& options);

}  // namespace kamerton::tuning
