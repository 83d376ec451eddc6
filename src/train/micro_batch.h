// SPDX-License-Identifier: Apache-2.0
// Forward and backward of one micro-batch.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "kamerton/train/parts.h"

namespace kamerton::train {

/// Gradients stay with their owner. Returns the micro-batch's part of the loss.
double forward_backward(Parts& parts, const data::Batch& batch, const objective::Shares& shares);

/// Means over what all ranks have seen since the last step.
std::vector<std::pair<std::string, double>> reduce_metrics(Parts& parts);

}  // namespace kamerton::train
