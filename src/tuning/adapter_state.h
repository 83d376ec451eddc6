// SPDX-License-Identifier: Apache-2.0
// What an attached adapter is made of.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "method.h"

namespace kamerton::tuning {

/// A linear module with its change.
struct Changed {
  model::Linear* linear;
  std::shared_ptr<ModuleChange> change;
  uint64_t number;
  std::vector<tensor::ParameterPtr> parameters;  ///< what the change reads
  std::shared_ptr<model::LinearExtension> extension;
};

struct Adapter::State {
  explicit State(model::Decoder& model) : decoder(model) {}

  model::Decoder& decoder;
  AdapterSpec spec;
  std::vector<AdapterEntry> entries;
  std::unordered_map<const tensor::Parameter*, Initial> initials;
  std::vector<AdapterConstant> constants;
  std::vector<ModuleTriplets> triplets;
  std::vector<Changed> changed;
  std::unordered_map<const tensor::Parameter*, size_t> by_base;  ///< weight or bias -> changed
  std::shared_ptr<DropoutKeys> keys = std::make_shared<DropoutKeys>();
  bool trains_base = false;
  bool stays_on = false;
  std::string unmergeable;  ///< why it cannot be merged
  std::function<at::Tensor(const at::Tensor&)> merged_embedding;
  std::vector<tensor::ParameterPtr> embedding_parameters;

  // Of merge(): what was there before.
  bool merged = false;
  bool kept = false;  // the originals are there
  std::vector<std::pair<tensor::ParameterPtr, at::Tensor>> originals;
  std::shared_ptr<model::EmbeddingExtension> embedding_extension;

  // The last initial value that was computed whole.
  std::string computed_name;
  at::Tensor computed;

  at::Tensor merged_value(const tensor::Parameter& parameter, const at::Tensor& whole) const;
  const std::vector<tensor::ParameterPtr>* parameters_behind(
      const tensor::Parameter& parameter) const;
};

}  // namespace kamerton::tuning
