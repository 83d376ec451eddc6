// SPDX-License-Identifier: Apache-2.0
// BOFT (arXiv 2311.06243) with one butterfly factor: y = s * (W (x R)) + bias, R block-diagonal,
// each block the Cayley transform of a skew matrix. PEFT without its CUDA extension has the same.
#include <ATen/ATen.h>

#include "../method.h"

namespace kamerton::tuning {
namespace {

class BoftChange final : public ModuleChange {
 public:
  BoftChange(tensor::ParameterPtr r, tensor::ParameterPtr s) : r_(std::move(r)), s_(std::move(s)) {}

  at::Tensor apply(const ModuleUse& use, const at::Tensor& x) const override {
    const at::Tensor out = use.linear.product(turned(x).to(x.scalar_type()), false) *
                           s_->value.flatten().to(x.scalar_type());
    return use.linear.bias == nullptr ? out : out + use.linear.bias->value;
  }
  at::Tensor merged(const at::Tensor& weight) const override {
    const at::Tensor rotation = turned(at::eye(weight.size(1), weight.options()));
    return at::mm(weight, rotation.t()) * wide(s_);
  }

 private:
  at::Tensor turned(const at::Tensor& x) const {
    const at::Tensor free = wide(r_).squeeze(0);  // [blocks, b, b]
    const at::Tensor skew = 0.5 * (free - free.transpose(1, 2));
    const at::Tensor eye = at::eye(free.size(1), free.options().requires_grad(false));
    const at::Tensor rotations = at::linalg_solve(eye + skew, eye - skew, /*left=*/false);
    const at::Tensor parts =
        x.to(at::kFloat).view({x.size(0), free.size(0), free.size(1)}).transpose(0, 1);
    return at::matmul(parts, rotations).transpose(0, 1).reshape(x.sizes());
  }

  tensor::ParameterPtr r_;  // [1, blocks, b, b]
  tensor::ParameterPtr s_;  // [O, 1]
};

void attach_boft(Builder& builder) {
  const int64_t size = builder.count("boft_block_size");
  const int64_t number = builder.count("boft_block_num");
  if (builder.count("boft_n_butterfly_factor") != 1) {
    builder.refuse("only one butterfly factor is built",
                   std::to_string(builder.count("boft_n_butterfly_factor")),
                   "boft_n_butterfly_factor: 1");
  }
  if ((size > 0) == (number > 0)) {
    builder.refuse("exactly one of boft_block_size and boft_block_num must be above 0",
                   std::to_string(size) + " and " + std::to_string(number),
                   "boft_block_size=4");
  }
  for (model::Linear* linear : builder.targeted()) {
    const int64_t divisor = size > 0 ? size : number;
    if (linear->in_features % divisor != 0) {
      builder.refuse("the inputs of " + linear->name + " are not a multiple of it",
                     std::to_string(divisor),
                     "a divisor of " + std::to_string(linear->in_features));
    }
    const int64_t block = size > 0 ? size : linear->in_features / number;
    auto r = builder.add(linear->unit,
                         linear->name + ".boft_R",
                         {1, linear->in_features / block, block, block},
                         Initial::constant(0));
    auto s = builder.add(
        linear->unit, linear->name + ".boft_s", {linear->out_features, 1}, Initial::constant(1));
    builder.change(*linear, std::make_unique<BoftChange>(r, s));
  }
}

}  // namespace

Method boft_method() {
  return {.name = "boft",
          .peft_type = "BOFT",
          .text = "rotations of blocks and a scale of the outputs (arXiv 2311.06243)",
          .settings = {{"boft_block_size", 4, "inputs a block; 0: by boft_block_num"},
                       {"boft_block_num", 0, "number of blocks; 0: by boft_block_size"},
                       {"boft_n_butterfly_factor", 1, "factors (one is built)"}},
          .targets = {"all-linear"},
          .attach = attach_boft};
}

}  // namespace kamerton::tuning
