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

/// What is minimised beside the loss, and what a rank budget has left.
void append_method_metrics(const Parts& parts,
                           const optim::GradientReport& gradient,
                           std::vector<std::pair<std::string, double>>& metrics);

}  // namespace kamerton::train
