// SPDX-License-Identifier: Apache-2.0
// HRA (arXiv 2405.17484): y = W H x with H = product of reflections I - 2 u u^T. Columns of u come
// in equal pairs at first, so that H starts as I.
#include <cmath>

#include <ATen/ATen.h>

#include "kamerton/core/random.h"

#include "../method.h"

namespace kamerton::tuning {
namespace {

class HraChange final : public InputChange {
 public:
  HraChange(tensor::ParameterPtr u, bool orthogonal) : u_(std::move(u)), orthogonal_(orthogonal) {}

 protected:
  /// x H^T, one reflection after the other: no [I, I] matrix.
  at::Tensor turned(const at::Tensor& x) const override {
    at::Tensor y = x.to(at::kFloat);
    const std::vector<at::Tensor> columns = directions();
    if (orthogonal_) {
      const at::Tensor all = at::stack(columns, 1);
      return y - 2 * at::mm(at::mm(y, all), all.t());
    }
    for (auto u = columns.rbegin(); u != columns.rend(); ++u) {
      y = y - 2 * at::mv(y, *u).unsqueeze(1) * *u;
    }
    return y;
  }

 private:
  /// Unit vectors; with Gram-Schmidt each orthogonal to those before it.
  std::vector<at::Tensor> directions() const {
    std::vector<at::Tensor> units;
    for (const at::Tensor& column : wide(u_).unbind(1)) {
      at::Tensor u = column;
      for (size_t j = 0; orthogonal_ && j < units.size(); ++j) {
        u = u - at::dot(units[j], u) * units[j];
      }
      units.push_back(u / at::linalg_vector_norm(u));
    }
    return units;
  }

  tensor::ParameterPtr u_;  // [I, R]
  bool orthogonal_;
};

/// Uniform as torch's kaiming_uniform_(a = sqrt 5) of the half, every column twice.
at::Tensor pairs(const InitialContext& context, int64_t in, int64_t r) {
  const core::RandomStream random(context.seed, context.name);
  const int64_t columns = r % 2 == 0 ? r / 2 : r;
  const double bound = 1.0 / std::sqrt(static_cast<double>(columns));
  at::Tensor half = at::empty({in, columns}, at::kFloat);
  auto* data = half.mutable_data_ptr<float>();
  for (int64_t i = 0; i < half.numel(); ++i) {
    data[i] = static_cast<float>((2.0 * random.uniform(static_cast<uint64_t>(i)) - 1.0) * bound);
  }
  return r % 2 == 0 ? half.repeat_interleave(2, 1) : half;
}

void attach_hra(Builder& builder) {
  const int64_t r = builder.count("r");
  for (model::Linear* linear : builder.targeted()) {
    const int64_t in = linear->in_features;
    auto u = builder.add(linear->unit,
                         linear->name + ".hra_u",
                         {in, r},
                         Initial::computed([in, r](const InitialContext& context) {
                           return pairs(context, in, r);
                         }));
    builder.change(*linear, std::make_unique<HraChange>(u, builder.flag("apply_GS")));
  }
}

}  // namespace

Method hra_method() {
  return {.name = "hra",
          .peft_type = "HRA",
          .text = "Householder reflections of the input (arXiv 2405.17484)",
          .settings = {{"r", 8, "number of reflections; even: starts as no change"},
                       {"apply_GS", false, "reflections orthogonal to each other"}},
          .targets = {"all-linear"},
          .attach = attach_hra};
}

}  // namespace kamerton::tuning
