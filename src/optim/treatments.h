// SPDX-License-Identifier: Apache-2.0
// Learning rates and weight decay by layer and by pattern.
#pragma once

#include <regex>
#include <string>
#include <vector>

#include "kamerton/optim/config.h"
#include "kamerton/tensor/param_unit.h"

#include "flat_layout.h"

namespace kamerton::optim {

/// optim.groups and optim.layer_decay over the units of one model.
class Treatments {
 public:
  /// ErrorKind::Config for an expression that is none, or matches no parameter of a model that is
  /// trained.
  Treatments(const OptimConfig& config, const std::vector<tensor::ParamUnit>& units);

  /// `born` is left 0. With layer decay d the learning rate of unit number i (the embedding is 0)
  /// is multiplied by d^(n - i), n being the number of the head (arXiv 2003.10555). Of the groups
  /// the last one that matches counts; those of the tuning method come on top.
  Treatment of(const tensor::ParamUnit& unit, const tensor::Parameter& parameter) const;

 private:
  struct Group {
    std::regex pattern;
    const ParameterGroup* config;
  };
  const OptimConfig& config_;
  std::vector<Group> groups_;
  std::vector<Group> method_groups_;
  int head_ = 0;
};

}  // namespace kamerton::optim
