// SPDX-License-Identifier: Apache-2.0
// What the changes of one adapter share while a model runs.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace kamerton::tuning {

/// Tells dropout which tokens it sees, so that the mask is a pure function of (seed, token, layer):
/// the same in recomputation, on any number of ranks and in any packing. Set before a micro-batch;
/// empty keys: no dropout (evaluation).
struct DropoutKeys {
  uint64_t seed = 0;
  at::Tensor keys_N;         ///< int64, one a token
  bool adapter_off = false;  ///< the base model alone answers: see AdapterSwitch
};

}  // namespace kamerton::tuning
