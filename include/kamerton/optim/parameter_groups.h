// SPDX-License-Identifier: Apache-2.0
// Whether `optim.groups` fits a model, before anything is placed.
#pragma once

#include <vector>

#include "kamerton/optim/config.h"
#include "kamerton/tensor/param_unit.h"

namespace kamerton::optim {

/// Throws ErrorKind::Config for an expression that is none, or that matches no parameter of a model
/// that is trained; it names the nearest. Pure.
void check_groups(const OptimConfig& config, const std::vector<tensor::ParamUnit>& units);

}  // namespace kamerton::optim
