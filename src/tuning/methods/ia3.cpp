// SPDX-License-Identifier: Apache-2.0
// IA3 (arXiv 2205.05638): a trained vector multiplies a module's output, or a feed-forward module's
// input. Starts at ones.
#include <ATen/ATen.h>

#include "../method.h"

namespace kamerton::tuning {
namespace {

class Ia3Change final : public ModuleChange {
 public:
  Ia3Change(tensor::ParameterPtr l, bool feed_forward)
      : l_(std::move(l)), feed_forward_(feed_forward) {}

  at::Tensor apply(const ModuleUse& use, const at::Tensor& x) const override {
    const at::Tensor l = l_->value.flatten().to(x.scalar_type());
    return feed_forward_ ? use.linear.product(x * l) : use.linear.product(x) * l;
  }
  at::Tensor merged(const at::Tensor& weight) const override { return weight * wide(l_); }
  at::Tensor merged_bias(const at::Tensor& bias) const override {
    return feed_forward_ ? bias.clone() : bias * wide(l_).flatten();
  }

 private:
  tensor::ParameterPtr l_;  // [O, 1], or [1, I] of a feed-forward module
  bool feed_forward_;
};

/// PEFT's choice by family: k, v and the last feed-forward product; q and v for Qwen.
std::vector<std::string> family_targets(const model::DecoderConfig& config) {
  const auto last = [](const std::string& name) { return name.substr(name.rfind('.') + 1); };
  const model::ModuleNames& names = config.names;
  if (config.qkv != model::QkvLayout::Separate) {
    return {last(names.qkv), last(names.down)};
  }
  const bool qwen = config.model_type.starts_with("qwen");
  return {last(qwen ? names.q : names.k), last(names.v), last(names.down)};
}

void attach_ia3(Builder& builder) {
  const model::DecoderConfig& config = builder.decoder().config();
  builder.choose_targets(family_targets(config));
  core::Json feed_forward = builder.spec().settings->at("feedforward_modules");
  if (feed_forward.is_null()) {
    feed_forward = core::Json::array({config.names.down.substr(config.names.down.rfind('.') + 1)});
    builder.settle("feedforward_modules", feed_forward);
  }
  AdapterSpec inner;
  for (const core::Json& name :
       feed_forward.is_array() ? feed_forward : core::Json::array({feed_forward})) {
    inner.targets.push_back((feed_forward.is_string() ? "re:" : "") + name.get<std::string>());
  }
  for (model::Linear* linear : builder.targeted()) {
    const bool at_input = inner.targets_module(linear->name);
    const std::vector<int64_t> shape = at_input ? std::vector<int64_t>{1, linear->in_features}
                                                : std::vector<int64_t>{linear->out_features, 1};
    auto l = builder.add(linear->unit, linear->name + ".ia3_l", shape, Initial::constant(1));
    builder.change(*linear, std::make_unique<Ia3Change>(l, at_input));
  }
}

}  // namespace

Method ia3_method() {
  return {.name = "ia3",
          .peft_type = "IA3",
          .text = "vectors that scale keys, values and feed-forward inputs (arXiv 2205.05638)",
          .settings = {{"feedforward_modules",
                        nullptr,
                        "modules scaled at their input; null: the last feed-forward product"}},
          .targets = {},
          .attach = attach_ia3};
}

}  // namespace kamerton::tuning
