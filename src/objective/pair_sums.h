// SPDX-License-Identifier: Apache-2.0
// How much each token of an answer counts.
#pragma once

#include <ATen/core/Tensor.h>

#include "kamerton/data/example.h"

namespace kamerton::objective {

/// fp32 [T]: 1 at targets, 0 elsewhere; in pairs (documents 2p and 2p + 1) `tail_weight` at targets
/// beyond the length of the shorter answer (LD-DPO, arXiv 2409.06411).
at::Tensor answer_weights(const data::Batch& batch, double tail_weight);

}  // namespace kamerton::objective
