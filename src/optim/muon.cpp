// SPDX-License-Identifier: Apache-2.0
#include "muon.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <ATen/ATen.h>

#include "beside_matrices.h"

namespace kamerton::optim {

namespace {

constexpr int kIterations = 5;
constexpr double kA = 3.4445;
constexpr double kB = -4.7750;
constexpr double kC = 2.0315;
constexpr double kEps = 1e-7;

std::vector<const FlatSlot*> matrices_of(const UpdatePart& part) {
  std::vector<const FlatSlot*> matrices;
  for (const FlatSlot& slot : part.layout->slots) {
    if (is_matrix(*slot.parameter)) {
      matrices.push_back(&slot);
    }
  }
  return matrices;
}

/// How the orthogonal direction is scaled (optim.muon_scale).
double scale_of(const OptimConfig& config, const FlatSlot& slot) {
  const auto rows = static_cast<double>(slot.parameter->shape[0]);
  const auto columns = static_cast<double>(slot.parameter->shape[1]);
  return config.muon_scale == "original" ? std::sqrt(std::max(1.0, rows / columns))
                                         : 0.2 * std::sqrt(std::max(rows, columns));
}

int size_of(const UpdateStep& step) {
  return step.shard == nullptr ? 1 : step.shard->size();
}

/// The unit's directions, orthogonal, over this rank's part. `flat`: the part's directions.
at::Tensor make_orthogonal(const UpdatePart& part,
                           const std::vector<const FlatSlot*>& matrices,
                           const at::Tensor& flat,
                           const UpdateStep& step) {
  const int ranks = size_of(step);
  const bool cut = flat.numel() < part.layout->padded;
  at::Tensor whole = flat;
  if (cut) {
    whole = at::empty({part.layout->padded}, flat.options());
    step.shard->all_gather(flat, whole);
  }
  std::vector<std::pair<int64_t, int64_t>> shapes;
  for (const FlatSlot* slot : matrices) {
    shapes.emplace_back(slot->parameter->shape[0], slot->parameter->shape[1]);
  }
  const std::vector<int> owners = share_out(shapes, ranks);
  at::Tensor result = at::zeros({part.layout->padded}, flat.options());
  for (size_t i = 0; i < matrices.size(); ++i) {
    if (ranks == 1 || owners[i] == step.shard->rank()) {
      const FlatSlot& slot = *matrices[i];
      result.narrow(0, slot.offset, slot.numel)
          .copy_(orthogonalise(whole.narrow(0, slot.offset, slot.numel).view(slot.parameter->shape))
                     .reshape({-1}));
    }
  }
  if (ranks == 1) {
    return result;
  }
  if (!cut) {
    step.shard->all_reduce(result);  // zeros but from one rank: exact
    return result;
  }
  at::Tensor mine = at::empty({flat.numel()}, flat.options());
  step.shard->reduce_scatter(result, mine);
  return mine;
}

}  // namespace

at::Tensor orthogonalise(const at::Tensor& matrix) {
  const bool tall = matrix.size(0) > matrix.size(1);
  at::Tensor x = tall ? matrix.t().contiguous() : matrix.clone();
  x.div_(std::max(x.norm().item<double>(), kEps));
  for (int i = 0; i < kIterations; ++i) {
    const at::Tensor gram = at::mm(x, x.t());
    const at::Tensor polynomial = at::addmm(gram, gram, gram, kB, kC);
    x = at::addmm(x, polynomial, x, kA, 1.0);
  }
  return tall ? x.t() : x;
}

std::vector<int> share_out(const std::vector<std::pair<int64_t, int64_t>>& shapes, int ranks) {
  std::vector<size_t> order(shapes.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto cost = [&shapes](size_t i) {
    const auto [rows, columns] = shapes[i];
    return rows * columns * std::min(rows, columns);
  };
  std::stable_sort(
      order.begin(), order.end(), [&](size_t a, size_t b) { return cost(a) > cost(b); });
  std::vector<int64_t> busy(static_cast<size_t>(ranks));
  std::vector<int> owners(shapes.size());
  for (const size_t i : order) {
    const auto least = std::min_element(busy.begin(), busy.end());
    owners[i] = static_cast<int>(least - busy.begin());
    *least += cost(i);
  }
  return owners;
}

std::vector<StateKind> Muon::kinds(const OptimConfig&) {
  return {{"momentum."}, {"exp_avg_sq.", at::kFloat, 1, outside_blocks}};
}

std::vector<SharedKind> Muon::shared(const OptimConfig&, const tensor::Parameter& parameter) {
  return is_matrix(parameter) ? std::vector<SharedKind>{} : vector_kinds(parameter);
}

void Muon::update_matrices(const UpdatePart& part, const UpdateStep& step) const {
  const std::vector<const FlatSlot*> matrices = matrices_of(part);
  if (matrices.empty()) {
    return;
  }
  const int64_t length = part.param.numel();
  at::Tensor flat = at::zeros({length}, part.param.options());
  for (const FlatSlot* slot : matrices) {
    const SlotPart piece = within(*slot, part.begin, length);
    if (piece.length == 0) {
      continue;
    }
    const int64_t at = piece.flat - part.begin;
    const at::Tensor grad = part.grad.narrow(0, at, piece.length) * step.clip;
    at::Tensor momentum = part.state[0].narrow(0, at, piece.length);
    momentum.lerp_(grad, 1.0 - config_.momentum);
    flat.narrow(0, at, piece.length).copy_(grad.lerp(momentum, config_.momentum));  // Nesterov
  }
  const at::Tensor direction = make_orthogonal(part, matrices, flat, step);
  for (const FlatSlot* slot : matrices) {
    const SlotPart piece = within(*slot, part.begin, length);
    if (piece.length == 0) {
      continue;
    }
    const Treatment& treatment = treatment_at(part, slot->offset);
    const double lr = step.lr * treatment.lr_ratio;
    const int64_t at = piece.flat - part.begin;
    part.param.narrow(0, at, piece.length)
        .mul_(1.0 - lr * treatment.weight_decay)
        .add_(direction.narrow(0, at, piece.length), -lr * scale_of(config_, *slot));
  }
}

void Muon::update(const std::vector<UpdatePart>& parts, const UpdateStep& step) {
  const at::NoGradGuard no_grad;
  for (const UpdatePart& part : parts) {
    if (is_block(*part.unit)) {
      update_matrices(part, step);
    }
  }
  update_block_vectors(config_, parts, step);
  update_others(config_, parts, step);
}

}  // namespace kamerton::optim
