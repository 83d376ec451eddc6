// SPDX-License-Identifier: Apache-2.0
#include "adafactor.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>

#include "kamerton/core/error.h"

namespace kamerton::optim {

namespace {

constexpr double kGradientFloor = 1e-30;
constexpr double kWeightFloor = 1e-3;
constexpr double kClip = 1.0;
constexpr double kDecayRate = -0.8;

/// One parameter's share of a part, and what is known of the whole parameter.
struct Piece {
  const UpdatePart* part = nullptr;
  SlotPart own;  ///< of this rank's shard: sums are taken over it
  SlotPart all;  ///< of the whole part: the update is applied to it
  bool matrix = false;
  int64_t columns = 1;  ///< a vector: its length
  int64_t rows = 1;
  int64_t sums = 0;  ///< where its sums begin: rows, columns, squared weights
  Treatment treatment;
  std::vector<at::Tensor> state;
  /// 1 / sqrt of the second moment: of rows times of columns, or of elements.
  std::vector<float> row_factor;
  std::vector<float> column_factor;

  int64_t numel() const { return rows * columns; }
  int64_t num_sums() const { return (matrix ? rows + columns : columns) + 1; }
};

/// Calls body(element of the parameter, row, column, length) for stretches within one row.
template <class Body>
void for_rows(const SlotPart& piece, int64_t columns, const Body& body) {
  for (int64_t at = piece.begin; at < piece.begin + piece.length;) {
    const int64_t row = at / columns;
    const int64_t column = at % columns;
    const int64_t n = std::min(columns - column, piece.begin + piece.length - at);
    body(at, row, column, n);
    at += n;
  }
}

/// Every parameter on every rank, in the same order: the sums are collective.
std::vector<Piece> pieces_of(const std::vector<UpdatePart>& parts, const UpdateStep& step) {
  std::vector<Piece> pieces;
  int64_t sums = 0;
  for (const UpdatePart& part : parts) {
    const int64_t own = part.begin + part.own;
    for (const FlatSlot& slot : part.layout->slots) {
      const auto& shape = slot.parameter->shape;
      Piece piece;
      piece.part = &part;
      piece.own = within(slot, own, part.own_length);
      piece.all = within(slot, part.begin, part.param.numel());
      piece.matrix = shape.size() >= 2;
      piece.columns = piece.matrix ? shape.back() : slot.numel;
      piece.rows = slot.numel / std::max<int64_t>(piece.columns, 1);
      piece.sums = sums;
      piece.treatment = treatment_at(part, slot.offset);
      piece.state = step.shared->at(slot.parameter.get());
      sums += piece.num_sums();
      pieces.push_back(std::move(piece));
    }
  }
  return pieces;
}

const float* at_element(const at::Tensor& tensor, const UpdatePart& part, const SlotPart& piece) {
  return tensor.const_data_ptr<float>() + (piece.flat - part.begin) - piece.begin;
}

void reduce(at::Tensor& sums, const UpdateStep& step) {
  if (step.shard != nullptr && step.shard->size() > 1) {
    step.shard->all_reduce(sums);
  }
}

/// This rank's sums of squared gradients over rows and columns (of a vector: the squares), and of
/// squared weights.
void add_sums(const Piece& piece, double clip, double* sums) {
  const float* grad = at_element(piece.part->grad, *piece.part, piece.own);
  const float* param = at_element(piece.part->param, *piece.part, piece.own);
  double* columns = sums + piece.sums + (piece.matrix ? piece.rows : 0);
  double weights = 0.0;
  for_rows(piece.own, piece.columns, [&](int64_t at, int64_t row, int64_t column, int64_t n) {
    double total = 0.0;
    for (int64_t i = 0; i < n; ++i) {
      const double g = grad[at + i] * clip;
      const double square = g * g + kGradientFloor;
      total += square;
      columns[column + i] += square;
      weights += static_cast<double>(param[at + i]) * param[at + i];
    }
    if (piece.matrix) {
      sums[piece.sums + row] += total;
    }
  });
  sums[piece.sums + piece.num_sums() - 1] += weights;
}

/// state = beta * state + (1 - beta) * mean.
void blend(at::Tensor& state, const double* sums, double count, double beta) {
  auto* data = state.data_ptr<float>();
  for (int64_t i = 0; i < state.numel(); ++i) {
    data[i] = static_cast<float>(beta * data[i] + (1.0 - beta) * sums[i] / count);
  }
}

void update_moments(Piece& piece, const double* sums, double beta) {
  const double* own = sums + piece.sums;
  if (!piece.matrix) {
    blend(piece.state[0], own, 1.0, beta);
    const auto* v = piece.state[0].const_data_ptr<float>();
    piece.row_factor.assign(1, 1.0F);
    for (int64_t i = 0; i < piece.columns; ++i) {
      piece.column_factor.push_back(1.0F / std::sqrt(v[i]));
    }
    return;
  }
  blend(piece.state[0], own, static_cast<double>(piece.columns), beta);
  blend(piece.state[1], own + piece.rows, static_cast<double>(piece.rows), beta);
  const auto* row = piece.state[0].const_data_ptr<float>();
  const auto* column = piece.state[1].const_data_ptr<float>();
  double mean = 0.0;
  for (int64_t r = 0; r < piece.rows; ++r) {
    mean += row[r];
  }
  mean /= static_cast<double>(piece.rows);
  for (int64_t r = 0; r < piece.rows; ++r) {
    piece.row_factor.push_back(static_cast<float>(1.0 / std::sqrt(row[r] / mean)));
  }
  for (int64_t c = 0; c < piece.columns; ++c) {
    piece.column_factor.push_back(1.0F / std::sqrt(column[c]));
  }
}

double squared_update(const Piece& piece, float clip) {
  const float* grad = at_element(piece.part->grad, *piece.part, piece.own);
  double total = 0.0;
  for_rows(piece.own, piece.columns, [&](int64_t at, int64_t row, int64_t column, int64_t n) {
    const float* factor = piece.column_factor.data() + column;
    for (int64_t i = 0; i < n; ++i) {
      const double u = grad[at + i] * clip * piece.row_factor[static_cast<size_t>(row)] * factor[i];
      total += u * u;
    }
  });
  return total;
}

/// p -= lr * wd * p; p -= lr * update / max(1, rms(update)).
void apply(const Piece& piece, float clip, double lr, double rms) {
  const UpdatePart& part = *piece.part;
  const float* grad = at_element(part.grad, part, piece.all);
  auto* param = const_cast<float*>(at_element(part.param, part, piece.all));
  c10::BFloat16* low = part.low.defined() ? part.low.data_ptr<at::BFloat16>() +
                                                (piece.all.flat - part.begin) - piece.all.begin
                                          : nullptr;
  const auto scale = static_cast<float>(clip * lr / std::max(1.0, rms / kClip));
  const auto keep = static_cast<float>(1.0 - lr * piece.treatment.weight_decay);
  for_rows(piece.all, piece.columns, [&](int64_t at, int64_t row, int64_t column, int64_t n) {
    const float factor = piece.row_factor[static_cast<size_t>(row)] * scale;
    const float* by_column = piece.column_factor.data() + column;
    for (int64_t i = 0; i < n; ++i) {
      const float p = param[at + i] * keep - grad[at + i] * factor * by_column[i];
      param[at + i] = p;
      if (low != nullptr) {
        low[at + i] = p;
      }
    }
  });
}

}  // namespace

std::vector<SharedKind> Adafactor::shared(const OptimConfig&, const tensor::Parameter& parameter) {
  if (parameter.shape.size() < 2) {
    return {{"exp_avg_sq.", {parameter.numel()}}};
  }
  const int64_t columns = parameter.shape.back();
  return {{"exp_avg_sq_row.", {parameter.numel() / columns}}, {"exp_avg_sq_col.", {columns}}};
}

void Adafactor::update(const std::vector<UpdatePart>& parts, const UpdateStep& step) {
  std::vector<Piece> pieces = pieces_of(parts, step);
  if (pieces.empty()) {
    return;
  }
  const Piece& last = pieces.back();
  at::Tensor sums = at::zeros({last.sums + last.num_sums()}, at::kDouble);
  for (const Piece& piece : pieces) {
    add_sums(piece, step.clip, sums.data_ptr<double>());
  }
  reduce(sums, step);
  at::Tensor updates = at::zeros({static_cast<int64_t>(pieces.size())}, at::kDouble);
  const auto clip = static_cast<float>(step.clip);
  for (size_t i = 0; i < pieces.size(); ++i) {
    const auto age = static_cast<double>(step.number - pieces[i].treatment.born);
    update_moments(pieces[i], sums.const_data_ptr<double>(), 1.0 - std::pow(age, kDecayRate));
    updates.data_ptr<double>()[i] = squared_update(pieces[i], clip);
  }
  reduce(updates, step);
  for (size_t i = 0; i < pieces.size(); ++i) {
    const Piece& piece = pieces[i];
    const auto numel = static_cast<double>(piece.numel());
    const double weights =
        std::sqrt(sums.const_data_ptr<double>()[piece.sums + piece.num_sums() - 1] / numel);
    const double lr = step.lr * piece.treatment.lr_ratio *
                      (config_.scale_by_weights ? std::max(kWeightFloor, weights) : 1.0);
    apply(piece, clip, lr, std::sqrt(updates.const_data_ptr<double>()[i] / numel));
  }
}

}  // namespace kamerton::optim
