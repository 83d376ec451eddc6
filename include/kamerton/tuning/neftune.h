// SPDX-License-Identifier: Apache-2.0
// NEFTune (arXiv 2310.05914): uniform noise on the embeddings in training.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kamerton/model/decoder.h"

namespace kamerton::tuning {

/// Noise in [-a, a) with a = alpha / sqrt(L D) on the embedding's rows [N, D] before the model
/// scales them, L the length of each token's own document, so that packing changes nothing
/// (transformers: of the padded or packed row); a pure function of (seed, token, dimension). Wraps
/// what an adapter makes of the embedding. Without a micro-batch, or without gradients, it does
/// nothing.
class Neftune final : public model::EmbeddingExtension {
 public:
  Neftune(double alpha, uint64_t seed, std::shared_ptr<model::EmbeddingExtension> inner = nullptr)
      : alpha_(alpha), seed_(seed), inner_(std::move(inner)) {}

  /// Puts it around the decoder's extension of the embedding; after adapters are attached.
  static std::shared_ptr<Neftune> install(model::Decoder& decoder, double alpha, uint64_t seed);

  /// A micro-batch follows. keys_N (int64): a name for each token.
  void begin(const at::Tensor& keys_N, const std::vector<int64_t>& document_offsets);
  /// It is over.
  void end() { keys_N_.reset(); }

  at::Tensor apply(const at::Tensor& tokens_N, const at::Tensor& rows_ND) override;
  tensor::ParameterPtr head(const tensor::ParameterPtr& tied) override;
  at::Tensor before_head(const at::Tensor& hidden, const tensor::ParameterPtr& own) override;
  void fold_head(const tensor::ParameterPtr& own) override;

 private:
  /// fp32 [N, D].
  at::Tensor noise(int64_t width) const;

  double alpha_;
  uint64_t seed_;
  std::shared_ptr<model::EmbeddingExtension> inner_;
  at::Tensor keys_N_;
  std::vector<int64_t> offsets_;
};

}  // namespace kamerton::tuning
