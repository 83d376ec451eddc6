// SPDX-License-Identifier: Apache-2.0
// From one row of logits to one token.
#pragma once

#include <cstdint>
#include <vector>

#include "kamerton/model/generate.h"

namespace kamerton::model {

/// Chooses the next token of prompt `prompt`, draw number `step`. `logits` [vocab] is changed in
/// place. `seen`: the sequence so far, for the repetition penalty. The order is transformers':
/// penalty, temperature, top-k, top-p.
int64_t sample(float* logits,
               int64_t vocab,
               const std::vector<int64_t>& seen,
               const SampleOptions& options,
               uint64_t prompt,
               uint64_t step);

}  // namespace kamerton::model
