// SPDX-License-Identifier: Apache-2.0
// What the layers of a model are made of: parameters and linear modules, put into a unit by name.
#pragma once

#include <string>
#include <vector>

#include "kamerton/model/decoder.h"

namespace kamerton::model {

/// A new parameter at the end of the unit.
tensor::ParameterPtr declare(tensor::ParamUnit& unit,
                             const std::string& name,
                             std::vector<int64_t> shape);

/// "<name>.weight" and, with bias, "<name>.bias". transposed: the weight is [in, out] (Conv1D).
Linear declare_linear(tensor::ParamUnit& unit,
                      const std::string& name,
                      int64_t in,
                      int64_t out,
                      bool bias,
                      bool transposed = false);

}  // namespace kamerton::model
