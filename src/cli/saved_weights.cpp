// SPDX-License-Identifier: Apache-2.0
#include "saved_weights.h"

#include <ATen/ATen.h>

#include "kamerton/core/error.h"

namespace kamerton::cli {

SavedWeights::SavedWeights(const checkpoint::Store& store, int64_t step, bool average)
    : average_(average) {
  bool averaged = false;
  for (const checkpoint::TensorInfo& tensor : store.contents(step).tensors) {
    saved_[tensor.name] = tensor.dtype;
    averaged = averaged || tensor.name.starts_with("ema.");
  }
  if (average && !averaged) {
    throw core::Error(core::ErrorKind::Data,
                      {.where = "cli.export",
                       .what = "the checkpoint has no moving average of the weights",
                       .got = "--ema",
                       .allowed = "a run with optim.ema_decay",
                       .hint = "without --ema"});
  }
}

std::optional<SavedWeights::Saved> SavedWeights::find(const tensor::Parameter& parameter,
                                                      at::Tensor memory) const {
  const bool averaged = average_ && saved_.contains("ema." + parameter.name);
  const std::string name = (averaged ? "ema." : "model.") + parameter.name;
  const auto found = saved_.find(name);
  if (!parameter.trainable && found == saved_.end()) {
    return std::nullopt;
  }
  // Where a trained weight is missing, the store's error names it.
  const storage::DType dtype = found == saved_.end() ? storage::DType::F32 : found->second;
  const at::ScalarType kind = dtype == storage::DType::BF16 ? at::kBFloat16 : at::kFloat;
  if (!memory.defined() || !memory.is_cpu() || memory.scalar_type() != kind) {
    memory = at::empty(parameter.shape, kind);
  }
  return Saved{memory,
               {.name = name,
                .dtype = dtype,
                .shape = parameter.shape,
                .offset = 0,
                .length = parameter.numel(),
                .data = memory.data_ptr()}};
}

}  // namespace kamerton::cli
