// SPDX-License-Identifier: Apache-2.0
#include "kamerton/tuning/neftune.h"

#include <cmath>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "mix.h"

namespace kamerton::tuning {
namespace {

/// Of other uses of the same seed and tokens (dropout).
constexpr uint64_t kPurpose = 0x4E4546547E6E6F69ULL;
/// 2^-23: 24 random bits become [-1, 1).
constexpr float kUnit = 1.0F / 8388608.0F;

/// out[0 ... width) uniform in [-bound, bound).
void fill_row(float* out, int64_t width, uint64_t row, float bound) {
  for (int64_t d = 0; d < width; ++d) {
    const uint64_t bits = mix(row + kMixStride * static_cast<uint64_t>(d + 1)) >> 40;
    out[d] = (static_cast<float>(bits) * kUnit - 1.0F) * bound;
  }
}

}  // namespace

std::shared_ptr<Neftune> Neftune::install(model::Decoder& decoder, double alpha, uint64_t seed) {
  auto& embedding = decoder.extensions().embedding;
  auto neftune = std::make_shared<Neftune>(alpha, seed, embedding);
  embedding = neftune;
  return neftune;
}

void Neftune::begin(const at::Tensor& keys_N, const std::vector<int64_t>& document_offsets) {
  keys_N_ = keys_N;
  offsets_ = document_offsets;
}

at::Tensor Neftune::noise(int64_t width) const {
  const int64_t rows = keys_N_.size(0);
  at::Tensor noise_ND = at::empty({rows, width}, at::kFloat);
  auto* out = noise_ND.mutable_data_ptr<float>();
  const auto* keys = keys_N_.const_data_ptr<int64_t>();
  const auto documents = static_cast<int64_t>(offsets_.size()) - 1;
  at::parallel_for(0, documents, 1, [&](int64_t first, int64_t last) {
    for (int64_t d = first; d < last; ++d) {
      const int64_t begin = offsets_[static_cast<size_t>(d)];
      const int64_t end = offsets_[static_cast<size_t>(d) + 1];
      const double bound = alpha_ / std::sqrt(static_cast<double>((end - begin) * width));
      for (int64_t n = begin; n < end; ++n) {
        const uint64_t row = mix((seed_ ^ kPurpose) + kMixStride * static_cast<uint64_t>(keys[n]));
        fill_row(out + n * width, width, row, static_cast<float>(bound));
      }
    }
  });
  return noise_ND;
}

at::Tensor Neftune::apply(const at::Tensor& tokens_N, const at::Tensor& rows_ND) {
  const at::Tensor x = inner_ == nullptr ? rows_ND : inner_->apply(tokens_N, rows_ND);
  // Other rows than the micro-batch's are of somebody who asks the model something.
  if (!keys_N_.defined() || !at::GradMode::is_enabled() || keys_N_.size(0) != x.size(0)) {
    return x;
  }
  return x + noise(x.size(1)).to(x.options());
}

tensor::ParameterPtr Neftune::head(const tensor::ParameterPtr& tied) {
  return inner_ == nullptr ? tied : inner_->head(tied);
}

at::Tensor Neftune::before_head(const at::Tensor& hidden, const tensor::ParameterPtr& own) {
  return inner_ == nullptr ? hidden : inner_->before_head(hidden, own);
}

void Neftune::fold_head(const tensor::ParameterPtr& own) {
  if (inner_ != nullptr) {
    inner_->fold_head(own);
  }
}

}  // namespace kamerton::tuning
