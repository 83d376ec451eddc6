// SPDX-License-Identifier: Apache-2.0
// LoRA adapters combined into one, file by file, as PEFT's add_weighted_adapter combines them; no
// base model is read.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "kamerton/tuning/peft_format.h"

namespace kamerton::tuning {

struct CombineOptions {
  /// linear | cat | svd | ties | dare_linear | dare_ties | magnitude_prune, and the last four with
  /// _svd: on the updates themselves instead of their factors.
  std::string how = "linear";
  std::vector<double> weights;  ///< one an adapter
  double density = 1.0;         ///< share of values that is kept (ties, dare, magnitude_prune)
  std::string majority =
      "total";        ///< ties: the sign of the sum, or of the greater number (frequency)
  int64_t rank = 0;   ///< svd: of the result; 0: the largest of the adapters'
  uint64_t seed = 0;  ///< dare: which values are dropped
};

std::vector<std::string> combination_names();

/// Writes the combination of plain LoRA adapters. ErrorKind::Config for an unknown way, a number of
/// weights other than of adapters, factors of different rank where they are combined one by one, a
/// density outside (0, 1]; ErrorKind::Data for adapters that are not plain LoRA or whose shapes
/// differ.
void combine(const std::vector<std::filesystem::path>& adapters,
             const CombineOptions& options,
             const std::filesystem::path& to);

/// How two adapters of one method differ at a tensor.
struct TensorDifference {
  std::string key;
  double first = 0;       ///< 2-norm in the first adapter; 0 where it lacks the tensor
  double second = 0;      ///< the same in the second
  double difference = 0;  ///< 2-norm of the difference
  double cosine = 0;      ///< of the angle between them; 0 where one is missing or zero
};
/// Every tensor of either, in the order of names. ErrorKind::Data when shapes differ.
std::vector<TensorDifference> differences(const PeftAdapter& first, const PeftAdapter& second);

}  // namespace kamerton::tuning
