// SPDX-License-Identifier: Apache-2.0
// MiSS (arXiv 2409.15371): y = W x + D^T (sum of x's pieces of r elements); "mini": D repeats along
// the outputs; "bat": delta = W' B + B on blocks of r x r of the weight.
#include <ATen/ATen.h>

#include "../method.h"

namespace kamerton::tuning {
namespace {

class MissChange final : public ModuleChange {
 public:
  MissChange(tensor::ParameterPtr block, double dropout)
      : block_(std::move(block)), dropout_(dropout) {}

  at::Tensor apply(const ModuleUse& use, const at::Tensor& x) const override {
    const int64_t r = block_->shape[0];
    at::Tensor kept = use.dropped(x, dropout_);
    if (const int64_t rest = x.size(1) % r; rest != 0) {
      kept = at::constant_pad_nd(kept, {0, r - rest});
    }
    const at::Tensor pieces = kept.view({x.size(0), -1, r}).sum(1);
    const at::Tensor columns =
        block_->value.repeat({1, use.linear.out_features / block_->shape[1]});
    return use.linear.product(x) + at::mm(pieces, columns);
  }
  at::Tensor merged(const at::Tensor& weight) const override {
    const int64_t r = block_->shape[0];
    const at::Tensor rows = wide(block_).repeat({1, weight.size(0) / block_->shape[1]}).t();
    return weight + rows.repeat({1, (weight.size(1) + r - 1) / r}).narrow(1, 0, weight.size(1));
  }

 private:
  tensor::ParameterPtr block_;  // [R, O], or [R, mini_r]
  double dropout_;
};

class BatChange final : public WeightChange {
 public:
  explicit BatChange(tensor::ParameterPtr block) : block_(std::move(block)) {}

 protected:
  at::Tensor delta(const at::Tensor& weight) const override {
    const at::Tensor block = wide(block_);  // [O / r, r, r]
    const int64_t r = block.size(2);
    const at::Tensor parts = weight.to(at::kFloat)
                                 .reshape({weight.size(0) / r, r, weight.size(1) / r, r})
                                 .permute({2, 0, 1, 3});
    return (at::matmul(parts, block) + block).permute({1, 2, 0, 3}).reshape(weight.sizes());
  }

 private:
  tensor::ParameterPtr block_;
};

void attach_miss(Builder& builder) {
  const core::Json& init = builder.spec().settings->at("init_weights");
  const std::string kind = init.is_string() ? init.get<std::string>() : "miss";
  const int64_t r = builder.count("r");
  for (model::Linear* linear : builder.targeted()) {
    const int64_t in = linear->in_features;
    const int64_t out = linear->out_features;
    const int64_t columns = kind == "mini" ? builder.count("mini_r") : out;
    const bool fits = kind == "bat" ? in % r == 0 && out % r == 0 : out % columns == 0 && r <= in;
    if (!fits) {
      builder.refuse("the sizes of " + linear->name + " do not fit",
                     "r " + std::to_string(r),
                     kind == "bat" ? "a divisor of inputs and outputs"
                                   : "at most the inputs; mini_r a divisor of the outputs");
    }
    const std::vector<int64_t> shape =
        kind == "bat" ? std::vector<int64_t>{out / r, r, r} : std::vector<int64_t>{r, columns};
    auto block =
        builder.add(linear->unit, linear->name + ".miss_block", shape, Initial::constant(0));
    if (kind == "bat") {
      builder.change(*linear, std::make_unique<BatChange>(block));
    } else {
      builder.change(*linear, std::make_unique<MissChange>(block, builder.number("miss_dropout")));
    }
  }
}

}  // namespace

Method miss_method() {
  return {.name = "miss",
          .peft_type = "MISS",
          .text = "one matrix shared by all pieces of the input (arXiv 2409.15371)",
          .settings = {{"r", 64, "elements a piece"},
                       {"miss_dropout", 0.0, "probability that an input is dropped"},
                       {"mini_r", 1, "init_weights mini: columns that repeat along the outputs"},
                       {"init_weights", true, "true, bat or mini: the form"}},
          .targets = {"all-linear"},
          .attach = attach_miss};
}

}  // namespace kamerton::tuning
