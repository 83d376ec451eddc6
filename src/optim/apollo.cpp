// SPDX-License-Identifier: Apache-2.0
#include "apollo.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "kamerton/core/random.h"

#include "beside_matrices.h"

namespace kamerton::optim {

namespace {

constexpr double kGrowth = 1.01;
constexpr double kFloor = 1e-8;

/// Of a matrix [rows, columns]: the longer side has the channels, the shorter is projected.
struct Shape {
  int64_t rows;
  int64_t columns;
  bool wide() const { return rows < columns; }
  int64_t channels() const { return std::max(rows, columns); }
};

Shape shape_of(const tensor::Parameter& parameter) {
  return {parameter.shape[0], parameter.shape[1]};
}

int64_t rank_of(const OptimConfig& config, const Shape& shape) {
  return std::min(config.apollo_rank, std::min(shape.rows, shape.columns));
}

struct Matrix {
  const UpdatePart* part;
  const FlatSlot* slot;
  Shape shape;
  int64_t rank;
  int64_t at;               ///< its projection among those of all
  at::Tensor projected_RC;  ///< [rank, channels], a view
  at::Tensor stretch_C;     ///< by channel, or one number
};

std::vector<Matrix> matrices_of(const OptimConfig& config,
                                const std::vector<UpdatePart>& parts,
                                int64_t* total) {
  std::vector<Matrix> matrices;
  for (const UpdatePart& part : parts) {
    for (const FlatSlot& slot : part.layout->slots) {
      if (is_block(*part.unit) && is_matrix(*slot.parameter)) {
        const Shape shape = shape_of(*slot.parameter);
        const int64_t rank = rank_of(config, shape);
        matrices.push_back({&part, &slot, shape, rank, *total, {}, {}});
        *total += rank * shape.channels();
      }
    }
  }
  return matrices;
}

/// A piece of the parameter as the whole rows that it touches, zero elsewhere.
struct Rows {
  int64_t first = 0;
  at::Tensor values_NC;
};

Rows rows_of(const at::Tensor& flat, const UpdatePart& part, const SlotPart& piece, Shape shape) {
  Rows rows;
  rows.first = piece.begin / shape.columns;
  const int64_t last = (piece.begin + piece.length + shape.columns - 1) / shape.columns;
  rows.values_NC = at::zeros({last - rows.first, shape.columns}, flat.options());
  rows.values_NC.view({-1})
      .narrow(0, piece.begin - rows.first * shape.columns, piece.length)
      .copy_(flat.narrow(0, piece.flat - part.begin, piece.length));
  return rows;
}

/// Adds what this rank's shard of the gradient contributes.
void project(Matrix& matrix, int64_t period, double clip) {
  const UpdatePart& part = *matrix.part;
  const SlotPart own = within(*matrix.slot, part.begin + part.own, part.own_length);
  if (own.length == 0) {
    return;
  }
  const Rows grad = rows_of(part.grad, part, own, matrix.shape);
  const std::string& name = matrix.slot->parameter->name;
  const int64_t count = grad.values_NC.size(0);
  if (matrix.shape.wide()) {
    const at::Tensor random = random_projection(name, period, matrix.rank, grad.first, count);
    matrix.projected_RC.addmm_(random, grad.values_NC, 1.0, clip);
  } else {
    const at::Tensor random = random_projection(name, period, matrix.rank, 0, matrix.shape.columns);
    matrix.projected_RC.narrow(1, grad.first, count).addmm_(random, grad.values_NC.t(), 1.0, clip);
  }
}

/// AdamW's moments of the projection, and by how much it would stretch it.
void stretch(const OptimConfig& config, Matrix& matrix, const UpdateStep& step) {
  const std::vector<at::Tensor>& state = step.shared->at(matrix.slot->parameter.get());
  at::Tensor first = state[0];
  at::Tensor second = state[1];
  first.lerp_(matrix.projected_RC, 1.0 - config.beta1);
  second.mul_(config.beta2).addcmul_(matrix.projected_RC, matrix.projected_RC, 1.0 - config.beta2);
  const at::Tensor step_RC = first / (second.sqrt() + config.eps);
  if (config.apollo_scale_type == "tensor") {
    matrix.stretch_C = step_RC.norm() / (matrix.projected_RC.norm() + kFloor);
  } else {
    matrix.stretch_C = step_RC.norm(2, 0) / (matrix.projected_RC.norm(2, 0) + kFloor);
  }
}

/// The stretched gradient over the part's piece; [rows, columns] of the rows that it touches.
Rows stretched(const Matrix& matrix, const SlotPart& piece, double clip) {
  Rows rows = rows_of(matrix.part->grad, *matrix.part, piece, matrix.shape);
  rows.values_NC.mul_(clip);
  if (matrix.stretch_C.dim() == 0 || matrix.shape.wide()) {
    rows.values_NC.mul_(matrix.stretch_C);
  } else {
    const int64_t count = rows.values_NC.size(0);
    rows.values_NC.mul_(matrix.stretch_C.narrow(0, rows.first, count).unsqueeze(1));
  }
  return rows;
}

double squares(const Matrix& matrix, double clip) {
  const UpdatePart& part = *matrix.part;
  const SlotPart own = within(*matrix.slot, part.begin + part.own, part.own_length);
  return own.length == 0
             ? 0.0
             : stretched(matrix, own, clip).values_NC.to(at::kDouble).square().sum().item<double>();
}

/// What the growth of the norm is limited to is taken from the step; the norm is remembered.
double limit(const Matrix& matrix, double norm, const UpdateStep& step) {
  at::Tensor last = step.shared->at(matrix.slot->parameter.get())[2];
  const auto before = static_cast<double>(last.item<float>());
  const double limiter = before > 0.0 ? std::max(norm / (before + kFloor), kGrowth) / kGrowth : 1.0;
  last.fill_(norm / limiter);
  return 1.0 / limiter;
}

void apply(const OptimConfig& config,
           const Matrix& matrix,
           double limited,
           const UpdateStep& step) {
  const UpdatePart& part = *matrix.part;
  const SlotPart piece = within(*matrix.slot, part.begin, part.param.numel());
  if (piece.length == 0) {
    return;
  }
  const Treatment& treatment = treatment_at(part, matrix.slot->offset);
  const double lr = step.lr * treatment.lr_ratio;
  const auto t = static_cast<double>(step.number - treatment.born);
  const double corrected =
      lr * std::sqrt(1.0 - std::pow(config.beta2, t)) / (1.0 - std::pow(config.beta1, t));
  const Rows rows = stretched(matrix, piece, step.clip);
  const at::Tensor change = rows.values_NC.view({-1}).narrow(
      0, piece.begin - rows.first * matrix.shape.columns, piece.length);
  part.param.narrow(0, piece.flat - part.begin, piece.length)
      .add_(change, -corrected * limited * std::sqrt(config.apollo_scale))
      .mul_(1.0 - lr * treatment.weight_decay);
}

void sum_over_ranks(const at::Tensor& sums, const UpdateStep& step) {
  if (step.shard != nullptr && step.shard->size() > 1 && sums.numel() > 0) {
    at::Tensor whole = sums;
    step.shard->all_reduce(whole);
  }
}

}  // namespace

at::Tensor random_projection(
    const std::string& name, int64_t period, int64_t rank, int64_t begin, int64_t count) {
  at::Tensor random = at::empty({rank, count}, at::kFloat);
  auto* values = random.mutable_data_ptr<float>();
  const core::RandomStream stream(static_cast<uint64_t>(period), "apollo " + name);
  const double scale = 1.0 / std::sqrt(static_cast<double>(rank));
  at::parallel_for(0, rank, 1, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      for (int64_t i = 0; i < count; ++i) {
        const auto counter = static_cast<uint64_t>((begin + i) * rank + r);
        values[r * count + i] = static_cast<float>(stream.normal(counter) * scale);
      }
    }
  });
  return random;
}

std::vector<StateKind> Apollo::kinds(const OptimConfig&) {
  return {{"exp_avg.", at::kFloat, 1, outside_blocks},
          {"exp_avg_sq.", at::kFloat, 1, outside_blocks}};
}

std::vector<SharedKind> Apollo::shared(const OptimConfig& config,
                                       const tensor::Parameter& parameter) {
  if (!is_matrix(parameter)) {
    return vector_kinds(parameter);
  }
  const Shape shape = shape_of(parameter);
  const int64_t rank = rank_of(config, shape);
  return {{"exp_avg_projected.", {rank, shape.channels()}},
          {"exp_avg_sq_projected.", {rank, shape.channels()}},
          {"last_norm.", {1}}};
}

void Apollo::update(const std::vector<UpdatePart>& parts, const UpdateStep& step) {
  const at::NoGradGuard no_grad;
  int64_t total = 0;
  std::vector<Matrix> matrices = matrices_of(config_, parts, &total);
  const int64_t period = (step.number - 1) / config_.apollo_update_gap;
  at::Tensor projections = at::zeros({total}, at::kFloat);
  for (Matrix& matrix : matrices) {
    const int64_t channels = matrix.shape.channels();
    matrix.projected_RC =
        projections.narrow(0, matrix.at, matrix.rank * channels).view({matrix.rank, channels});
    project(matrix, period, step.clip);
  }
  sum_over_ranks(projections, step);
  at::Tensor norms = at::zeros({static_cast<int64_t>(matrices.size())}, at::kDouble);
  for (size_t i = 0; i < matrices.size(); ++i) {
    stretch(config_, matrices[i], step);
    norms.mutable_data_ptr<double>()[i] = squares(matrices[i], step.clip);
  }
  sum_over_ranks(norms, step);
  for (size_t i = 0; i < matrices.size(); ++i) {
    const double norm = std::sqrt(norms.const_data_ptr<double>()[i]);
    apply(config_, matrices[i], limit(matrices[i], norm, step), step);
  }
  update_block_vectors(config_, parts, step);
  update_others(config_, parts, step);
}

}  // namespace kamerton::optim
