// SPDX-License-Identifier: Apache-2.0
#include "beside_matrices.h"

#include <ATen/ATen.h>

#include "elementwise_rules.h"
#include "update_kernels.h"

namespace kamerton::optim {

namespace {

struct Vector {
  const UpdatePart* part;
  const FlatSlot* slot;
  int64_t at;  ///< among the gradients of all
};

std::vector<Vector> vectors_of(const std::vector<UpdatePart>& parts, int64_t* total) {
  std::vector<Vector> vectors;
  for (const UpdatePart& part : parts) {
    for (const FlatSlot& slot : part.layout->slots) {
      if (is_block(*part.unit) && !is_matrix(*slot.parameter)) {
        vectors.push_back({&part, &slot, *total});
        *total += slot.numel;
      }
    }
  }
  return vectors;
}

/// Whole gradients of the vectors, each element from the rank that owns it: exact.
at::Tensor gather_gradients(const std::vector<Vector>& vectors,
                            int64_t total,
                            const UpdateStep& step) {
  at::Tensor grads = at::zeros({total}, at::kFloat);
  for (const Vector& vector : vectors) {
    const UpdatePart& part = *vector.part;
    const SlotPart own = within(*vector.slot, part.begin + part.own, part.own_length);
    if (own.length > 0) {
      grads.narrow(0, vector.at + own.begin, own.length)
          .copy_(part.grad.narrow(0, own.flat - part.begin, own.length));
    }
  }
  if (step.shard != nullptr && step.shard->size() > 1 && total > 0) {
    step.shard->all_reduce(grads);
  }
  return grads;
}

}  // namespace

bool is_block(const tensor::ParamUnit& unit) {
  return unit.name.starts_with("layers.");
}

bool outside_blocks(const tensor::ParamUnit& unit) {
  return !is_block(unit);
}

bool is_matrix(const tensor::Parameter& parameter) {
  return parameter.shape.size() == 2;
}

std::vector<SharedKind> vector_kinds(const tensor::Parameter& parameter) {
  return {{"exp_avg_whole.", {parameter.numel()}}, {"exp_avg_sq_whole.", {parameter.numel()}}};
}

void update_block_vectors(const OptimConfig& config,
                          const std::vector<UpdatePart>& parts,
                          const UpdateStep& step) {
  int64_t total = 0;
  const std::vector<Vector> vectors = vectors_of(parts, &total);
  const at::Tensor grads = gather_gradients(vectors, total, step);
  for (const Vector& vector : vectors) {
    const UpdatePart& part = *vector.part;
    const SlotPart piece = within(*vector.slot, part.begin, part.param.numel());
    const std::vector<at::Tensor>& moments = step.shared->at(vector.slot->parameter.get());
    // The kernel runs over the whole vector, on every rank alike; this one keeps its piece.
    at::Tensor param = at::zeros({vector.slot->numel});
    const bool has = piece.length > 0;
    at::Tensor theirs = param.narrow(0, has ? piece.begin : 0, piece.length);
    at::Tensor mine = part.param.narrow(0, has ? piece.flat - part.begin : 0, piece.length);
    theirs.copy_(mine);
    adamw(param.data_ptr<float>(),
          nullptr,
          grads.const_data_ptr<float>() + vector.at,
          moments[0].data_ptr<float>(),
          moments[1].data_ptr<float>(),
          vector.slot->numel,
          adamw_factors(config, step, treatment_at(part, vector.slot->offset)));
    mine.copy_(theirs);
  }
}

void update_others(const OptimConfig& config,
                   const std::vector<UpdatePart>& parts,
                   const UpdateStep& step) {
  std::vector<UpdatePart> others;
  for (const UpdatePart& part : parts) {
    if (!is_block(*part.unit)) {
      others.push_back(part);
    }
  }
  Adamw(config).update(others, step);
  for (const UpdatePart& part : parts) {
    if (part.low.defined()) {
      at::Tensor low = part.low;
      low.copy_(part.param);
    }
  }
}

}  // namespace kamerton::optim
