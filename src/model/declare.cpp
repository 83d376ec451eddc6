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

at::Tensor Linear::operator()(const at::Tensor& x_NI) const {
  at::Tensor out = tensor::linear(x_NI, weight, bias, transposed);
  return extension == nullptr ? out : extension->apply(*this, x_NI, out);
}

at::Tensor Linear::on_rows(const at::Tensor& x_RI, const at::Tensor& token_R) const {
  at::Tensor out = tensor::linear(x_RI, weight, bias, transposed);
  return extension == nullptr ? out : extension->apply_to_rows(*this, x_RI, out, token_R);
}

}  // namespace kamerton::model
