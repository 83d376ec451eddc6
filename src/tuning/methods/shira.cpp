// SPDX-License-Identifier: Apache-2.0
// SHiRA (arXiv 2406.13175): r (I + O) elements of the weight are trained, as many as LoRA of rank r
// has. Their places are torch's, by the seed in the configuration, or those in the file.
#include <ATen/ATen.h>

#include "../method.h"
#include "../torch_random.h"

namespace kamerton::tuning {
namespace {

class ShiraChange final : public WeightChange {
 public:
  ShiraChange(tensor::ParameterPtr values, std::shared_ptr<at::Tensor> indices)
      : values_(std::move(values)), indices_(std::move(indices)) {}

 protected:
  at::Tensor delta(const at::Tensor& weight) const override {
    const at::Tensor values = wide(values_);
    const at::Tensor indices = indices_->to(at::kLong);
    return at::zeros({weight.numel()}, values.options().requires_grad(false))
        .index_copy(0, indices[0] * weight.size(1) + indices[1], values)
        .view({weight.size(0), weight.size(1)});
  }

 private:
  tensor::ParameterPtr values_;
  std::shared_ptr<at::Tensor> indices_;  // rows and columns, int32 [2, values], ascending
};

void attach_shira(Builder& builder) {
  const core::Json& seed = builder.spec().settings->at("random_seed");
  const bool seeded = builder.text("mask_type") == "random" && seed.is_number_integer();
  const int64_t r = builder.count("r");
  for (model::Linear* linear : builder.targeted()) {
    const int64_t size = linear->in_features * linear->out_features;
    const int64_t count = r * (linear->in_features + linear->out_features);
    if (count > size) {
      builder.refuse("more trained elements than " + linear->name + " has",
                     std::to_string(count),
                     "at most " + std::to_string(size));
    }
    TorchRandom random(seeded ? static_cast<uint64_t>(seed.get<int64_t>()) : 0);
    const at::Tensor places = std::get<0>(random.permutation(size, count).sort());
    const int64_t in = linear->in_features;
    const auto indices =
        builder.constant({"base_model.model." + linear->name + ".shira_indices"},
                         at::stack({places.div(in, "floor"), places.remainder(in)}).to(at::kInt),
                         !seeded);
    auto values =
        builder.add(linear->unit, linear->name + ".shira_weight", {count}, Initial::constant(0));
    builder.change(*linear, std::make_unique<ShiraChange>(values, indices));
  }
}

}  // namespace

Method shira_method() {
  return {.name = "shira",
          .peft_type = "SHIRA",
          .text = "a sparse set of the weight's own elements (arXiv 2406.13175)",
          .settings = {{"r", 32, "trains r (inputs + outputs) elements of a module"},
                       {"mask_type", "random", "how the elements are chosen"},
                       {"random_seed", nullptr, "seed of their places (torch's generator)"}},
          .targets = {"all-linear"},
          .attach = attach_shira};
}

}  // namespace kamerton::tuning
