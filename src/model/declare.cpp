// SPDX-License-Identifier: Apache-2.0
#include "declare.h"

#include "kamerton/tensor/linear.h"

namespace kamerton::model {

tensor::ParameterPtr declare(tensor::ParamUnit& unit,
                             const std::string& name,
                             std::vector<int64_t> shape) {
  auto parameter = std::make_shared<tensor::Parameter>();
  parameter->name = name;
  parameter->shape = std::move(shape);
  unit.parameters.push_back(parameter);
  return parameter;
}

Linear declare_linear(tensor::ParamUnit& unit,
                      const std::string& name,
                      int64_t in,
                      int64_t out,
                      bool bias,
                      bool transposed) {
  Linear linear;
  linear.name = name;
  linear.unit = unit.index;
  linear.in_features = in;
  linear.out_features = out;
  linear.transposed = transposed;
  linear.weight = transposed ? declare(unit, name + ".weight", {in, out})
                             : declare(unit, name + ".weight", {out, in});
  if (bias) {
    linear.bias = declare(unit, name + ".bias", {out});
  }
  return linear;
}

at::Tensor Linear::product(const at::Tensor& x_NI, bool with_bias) const {
  if (packed == nullptr) {
    return tensor::linear(x_NI, weight, with_bias ? bias : nullptr, transposed);
  }
  const at::Tensor out = packed->product(x_NI);
  return with_bias && bias != nullptr ? out + bias->value : out;
}

at::Tensor Linear::operator()(const at::Tensor& x_NI) const {
  return extension == nullptr ? product(x_NI) : extension->apply(*this, x_NI, {});
}

at::Tensor Linear::on_rows(const at::Tensor& x_RI, const at::Tensor& token_R) const {
  return extension == nullptr ? product(x_RI) : extension->apply(*this, x_RI, token_R);
}

}  // namespace kamerton::model
