// SPDX-License-Identifier: Apache-2.0
// Half Fine-Tuning (arXiv 2404.18466): a random half of the weights is trained, the other half
// stays and keeps what the model knows.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_set>
#include <vector>

#include "kamerton/model/decoder.h"
#include "kamerton/tuning/config.h"

namespace kamerton::tuning {

/// The draws of a run: a pure function of (model, seed, number of the draw).
///
/// Per layer and category (the matrices of one part of a layer: attention, feed-forward, an expert;
/// and the norms) half of the members is drawn. Of an odd number one more than half in a random
/// half of the layers and one less than that in the others: over an even number of layers exactly
/// half. A bias goes with its matrix. Embeddings, output head and final norm are always trained.
/// Level "layer" draws whole layers, level "model" members regardless of layer and part.
class HalfDraws {
 public:
  /// Only parameters that are trainable now are ever drawn. The decoder must outlive this.
  HalfDraws(const model::Decoder& decoder, const HalfConfig& config, uint64_t seed);

  using Set = std::unordered_set<const tensor::Parameter*>;
  Set draw(int64_t number) const;

 private:
  /// What is drawn or not as a whole: a matrix and its bias, a norm, a layer.
  using Member = std::vector<const tensor::Parameter*>;
  /// Members of one category, layer by layer.
  struct Category {
    std::string name;
    std::vector<std::vector<Member>> layers;
  };
  void by_category(const model::Decoder& decoder);
  Category& category(const std::string& name);
  void draw_category(const Category& category, int64_t number, Set& drawn) const;

  uint64_t seed_;
  Member always_;
  std::vector<Category> categories_;
};

/// Sets the trainable flags of the decoder's parameters to a draw.
void apply(const HalfDraws::Set& draw, model::Decoder& decoder);

}  // namespace kamerton::tuning
