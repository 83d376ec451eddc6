// SPDX-License-Identifier: Apache-2.0
// A sharded model made whole for a while: generation takes as many forward passes as the longest
// answer of each rank, which ranks that gather together could not.
#pragma once

#include <utility>
#include <vector>

#include "kamerton/model/decoder.h"
#include "kamerton/optim/sharded_parameters.h"

namespace kamerton::cli {

/// While it lives every parameter is whole and the sharding sees no use of it. Collective to make;
/// costs a whole model in the computing type on each rank.
class WholeWeights {
 public:
  WholeWeights(model::Decoder& decoder, optim::ShardedParameters& parameters);
  ~WholeWeights();
  WholeWeights(const WholeWeights&) = delete;
  WholeWeights& operator=(const WholeWeights&) = delete;

 private:
  model::Decoder& decoder_;
  optim::ShardedParameters& parameters_;
  std::vector<std::pair<tensor::ParameterPtr, at::Tensor>> placed_;
};

}  // namespace kamerton::cli
