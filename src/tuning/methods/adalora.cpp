// SPDX-License-Identifier: Apache-2.0
// AdaLoRA (arXiv 2303.10512): y = W x + alpha / (rank + 1e-5) B (E * (A x)), E a trained diagonal.
// Pruning: optim/rank_budget.h. A file whose ranks were pruned is read with each module's own.
#include <algorithm>

#include <ATen/ATen.h>

#include "../method.h"

namespace kamerton::tuning {
namespace {

class AdaLoraChange final : public ModuleChange {
 public:
  AdaLoraChange(tensor::ParameterPtr a,
                tensor::ParameterPtr b,
                tensor::ParameterPtr e,
                double scale,
                double dropout)
      : a_(std::move(a)), b_(std::move(b)), e_(std::move(e)), scale_(scale), dropout_(dropout) {}

  at::Tensor apply(const ModuleUse& use, const at::Tensor& x) const override {
    const at::Tensor narrow = at::mm(use.dropped(x, dropout_), (a_->value * e_->value).t());
    return at::add(use.linear.product(x), at::mm(narrow, b_->value.t()), scale_);
  }
  at::Tensor merged(const at::Tensor& weight) const override {
    return weight + at::mm(wide(b_), wide(a_) * wide(e_)) * scale_;
  }

 private:
  tensor::ParameterPtr a_, b_, e_;  // [R, I], [O, R], [R, 1]
  double scale_;
  double dropout_;
};

/// The rank that is left of a module in a pruned file: {"...q_proj.lora_E": [true, false, ...]}.
int64_t rank_left(const Builder& builder, const std::string& module, int64_t r) {
  const core::Json& pattern = builder.spec().settings->at("rank_pattern");
  if (pattern.is_null()) {
    return r;
  }
  for (const auto& [name, kept] : pattern.items()) {
    if (name.find(module + ".") != std::string::npos && kept.is_array()) {
      return std::count(kept.begin(), kept.end(), true);
    }
  }
  return r;
}

void attach_adalora(Builder& builder) {
  const int64_t r = builder.count("init_r");
  const double alpha = builder.number("lora_alpha");
  const double scale =
      (alpha > 0 ? alpha : static_cast<double>(r)) / (static_cast<double>(r) + 1e-5);
  for (model::Linear* linear : builder.targeted()) {
    const int64_t rank = rank_left(builder, linear->name, r);
    const auto add = [&](const char* name, std::vector<int64_t> shape, Initial initial) {
      return builder.add(linear->unit, linear->name + name, std::move(shape), std::move(initial));
    };
    auto a = add(".lora_A", {rank, linear->in_features}, Initial::normal(0.02));
    auto b = add(".lora_B", {linear->out_features, rank}, Initial::normal(0.02));
    auto e = add(".lora_E", {rank, 1}, Initial::constant(0));
    builder.change(*linear,
                   std::make_unique<AdaLoraChange>(a, b, e, scale, builder.number("lora_dropout")));
    builder.prunes({linear->name, a, b, e});
  }
}

}  // namespace

Method adalora_method() {
  return {.name = "adalora",
          .peft_type = "ADALORA",
          .text = "singular triplets, pruned to a budget over all modules (arXiv 2303.10512)",
          .settings = {{"init_r", 12, "rank"},
                       {"target_r", 8, "mean rank after pruning"},
                       {"lora_alpha", 8.0, "scale: alpha / rank"},
                       {"lora_dropout", 0.0, "probability that an input of A is dropped"},
                       {"total_step", 1, "steps of the pruning schedule; 1: the run's"},
                       {"tinit", 0, "steps before the first pruning"},
                       {"tfinal", 0, "steps after the last pruning"},
                       {"deltaT", 1, "steps from one pruning to the next"},
                       {"beta1", 0.85, "of the moving average of importance"},
                       {"beta2", 0.85, "of the moving average of its uncertainty"},
                       {"orth_reg_weight", 0.5, "strength that keeps A and B orthogonal"},
                       {"rank_pattern", nullptr, "what a pruned file has kept"}},
          .targets = {"all-linear"},
          .attach = attach_adalora};
}

}  // namespace kamerton::tuning
