// SPDX-License-Identifier: Apache-2.0
#include "site_correction.h"

#include <ATen/ATen.h>

namespace kamerton::cli {
namespace {

std::span<float> span_of(const at::Tensor& tensor) {
  return {tensor.mutable_data_ptr<float>(), static_cast<size_t>(tensor.numel())};
}

}  // namespace

SiteCorrection::SiteCorrection(const federation::Layout& layout,
                               double mu,
                               bool scaffold,
                               const federation::RangeFile& model,
                               const federation::RangeFile& own)
    : layout_(layout), mu_(mu), scaffold_(scaffold), model_(model), own_(own) {}

SiteCorrection::Piece SiteCorrection::make_piece(int64_t at, const at::Tensor& values) const {
  Piece piece;
  if (mu_ > 0) {
    piece.start = values.clone();
  }
  if (scaffold_) {
    const at::Tensor global = at::zeros({values.numel()}, at::kFloat);
    const at::Tensor own = at::zeros({values.numel()}, at::kFloat);
    if (model_) {
      model_.read(layout_.size() + at, span_of(global));
    }
    if (own_) {
      own_.read(at, span_of(own));
    }
    piece.drift = global.sub(own).to(values.device());
  }
  return piece;
}

void SiteCorrection::operator()(const tensor::Parameter& parameter,
                                int64_t offset,
                                const at::Tensor& values,
                                at::Tensor gradient) {
  const int64_t begin = layout_.offset(parameter.name);
  if (begin < 0) {
    return;  // personal: it drifts as it likes
  }
  const auto [place, fresh] = pieces_.try_emplace({&parameter, offset});
  if (fresh) {
    place->second = make_piece(begin + offset, values);
  }
  const Piece& piece = place->second;
  if (mu_ > 0) {
    gradient.add_(values, mu_).sub_(piece.start, mu_);
  }
  if (scaffold_) {
    gradient.add_(piece.drift);
  }
}

}  // namespace kamerton::cli
