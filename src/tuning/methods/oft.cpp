// SPDX-License-Identifier: Apache-2.0
// OFT (arXiv 2306.07280; input-centric, 2506.19847): blocks of the input are rotated, y = W (x R).
// R = (I - Q)(I + Q)^-1 of a skew Q, or its Neumann series as PEFT computes it by default.
#include <ATen/ATen.h>

#include "../method.h"

namespace kamerton::tuning {
namespace {

class OftChange final : public InputChange {
 public:
  OftChange(tensor::ParameterPtr q, int64_t block, int64_t terms)
      : q_(std::move(q)), block_(block), terms_(terms) {}

 protected:
  at::Tensor turned(const at::Tensor& x) const override {
    const at::Tensor rotations = rotation();  // [blocks or 1, b, b]
    const int64_t blocks = x.size(1) / block_;
    const at::Tensor parts = x.to(at::kFloat).view({x.size(0), blocks, block_}).transpose(0, 1);
    return at::matmul(parts, rotations).transpose(0, 1).reshape(x.sizes());
  }

 private:
  at::Tensor rotation() const {
    const at::Tensor q = wide(q_);
    const at::Tensor places = at::triu_indices(block_, block_, 1, at::kLong).to(q.device());
    const at::Tensor flat =
        at::zeros({q.size(0), block_ * block_}, q.options().requires_grad(false));
    const at::Tensor upper =
        flat.index_copy(1, places[0] * block_ + places[1], q).view({q.size(0), block_, block_});
    const at::Tensor skew = upper - upper.transpose(1, 2);
    const at::Tensor eye = at::eye(block_, q.options().requires_grad(false));
    return terms_ > 0 ? series(skew, eye)
                      : at::linalg_solve(eye + skew, eye - skew, /*left=*/false);
  }
  /// I + 2 Q + 2 Q^2 + ... + Q^(terms - 1), the last one once.
  at::Tensor series(const at::Tensor& skew, const at::Tensor& eye) const {
    at::Tensor sum = eye.expand_as(skew);
    if (terms_ > 1) {
      sum = sum + 2 * skew;
    }
    if (terms_ > 2) {
      at::Tensor power = at::matmul(skew, skew);
      sum = sum + 2 * power;
      for (int64_t i = 3; i < terms_ - 1; ++i) {
        power = at::matmul(power, skew);
        sum = sum + 2 * power;
      }
      sum = sum + at::matmul(power, skew);
    }
    return sum;
  }

  tensor::ParameterPtr q_;  // [blocks, b (b - 1) / 2]: the upper triangle
  int64_t block_;
  int64_t terms_;  // of the series, 0: exact
};

/// The divisor of n that is nearest to `wish`, the smaller of two.
int64_t nearest_divisor(int64_t n, int64_t wish) {
  if (wish >= n) {
    return n;
  }
  int64_t above = wish;
  while (n % above != 0) {
    ++above;
  }
  int64_t below = wish;
  while (below > 1 && n % below != 0) {
    --below;
  }
  return wish - below <= above - wish ? below : above;
}

void attach_oft(Builder& builder) {
  const bool shared = builder.flag("block_share");
  if (builder.flag("coft")) {
    builder.refuse("constrained OFT is not built", "coft: true", "coft: false");
  }
  const int64_t size = builder.count("oft_block_size");
  const int64_t number = builder.count("r");
  if ((size > 0) == (number > 0)) {
    builder.refuse("exactly one of oft_block_size and r must be above 0",
                   std::to_string(size) + " and " + std::to_string(number),
                   "oft_block_size=32, or r=8 oft_block_size=0");
  }
  const int64_t terms =
      builder.flag("use_cayley_neumann") ? builder.count("num_cayley_neumann_terms") : 0;
  for (model::Linear* linear : builder.targeted()) {
    const int64_t in = linear->in_features;
    const int64_t block = size > 0 ? nearest_divisor(in, size) : in / nearest_divisor(in, number);
    auto q = builder.add(linear->unit,
                         linear->name + ".oft_R.weight",
                         {shared ? 1 : in / block, block * (block - 1) / 2},
                         Initial::constant(0));
    builder.change(*linear, std::make_unique<OftChange>(q, block, terms));
  }
}

}  // namespace

Method oft_method() {
  return {.name = "oft",
          .peft_type = "OFT",
          .text = "rotations of blocks of the input (arXiv 2306.07280)",
          .settings = {{"oft_block_size", 32, "inputs a block (a divisor near it); 0: by r"},
                       {"r", 0, "number of blocks; 0: by oft_block_size"},
                       {"block_share", false, "one rotation for all blocks"},
                       {"coft", false, "constrained (not built)"},
                       {"use_cayley_neumann", true, "a series instead of an inverse"},
                       {"num_cayley_neumann_terms", 5, "terms of the series"}},
          .targets = {"all-linear"},
          .attach = attach_oft};
}

}  // namespace kamerton::tuning
