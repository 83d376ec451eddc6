// SPDX-License-Identifier: Apache-2.0
// A norm of a model's kind with its parameters.
#pragma once

#include <string>
#include <tuple>

#include "kamerton/model/architecture.h"
#include "kamerton/tensor/param_unit.h"

namespace kamerton::model {

struct Norm {
  std::string name;  ///< of the module
  NormKind kind = NormKind::Rms;
  double eps = 0;
  tensor::ParameterPtr weight;  ///< null: the family has no norm here
  tensor::ParameterPtr bias;    ///< of NormKind::Layer

  explicit operator bool() const { return weight != nullptr; }
  at::Tensor operator()(const at::Tensor& x) const;
  /// (x + delta, norm of it), in one pass over memory.
  std::tuple<at::Tensor, at::Tensor> after_sum(const at::Tensor& x, const at::Tensor& delta) const;
};

/// "<prefix><name>.weight" (and ".bias") of `width` elements; nothing when the name is empty.
Norm declare_norm(tensor::ParamUnit& unit,
                  const std::string& prefix,
                  const std::string& name,
                  int64_t width,
                  const DecoderConfig& config);

}  // namespace kamerton::model
