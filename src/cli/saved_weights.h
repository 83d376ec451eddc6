// SPDX-License-Identifier: Apache-2.0
// Which of a model's parameters a checkpoint holds, under what name and in what form.
#pragma once

#include <map>
#include <optional>
#include <string>

#include <ATen/core/Tensor.h>

#include "kamerton/checkpoint/store.h"
#include "kamerton/tensor/param_unit.h"

namespace kamerton::cli {

/// Trained weights are fp32 masters; weights that sleep now but were trained by an earlier draw
/// (Half Fine-Tuning) are as the model holds them.
class SavedWeights {
 public:
  /// average: the moving average of a weight where there is one. ErrorKind::Data when there is
  /// none at all.
  SavedWeights(const checkpoint::Store& store, int64_t step, bool average);

  /// What to read `parameter` into: fp32 or bf16 memory of its shape on the host. nullopt: the
  /// checkpoint does not hold it, it is as the run started.
  struct Saved {
    at::Tensor memory;
    checkpoint::Slice slice;  ///< over the memory
  };
  /// `memory`: taken where it fits, else new memory.
  std::optional<Saved> find(const tensor::Parameter& parameter, at::Tensor memory = {}) const;

 private:
  std::map<std::string, storage::DType> saved_;
  bool average_;
};

}  // namespace kamerton::cli
