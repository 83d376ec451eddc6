// SPDX-License-Identifier: Apache-2.0
// LoHa (FedPara, arXiv 2108.06098): delta = alpha / r (W1a W1b) * (W2a W2b), element by element.
#include <ATen/ATen.h>

#include "../method.h"

namespace kamerton::tuning {
namespace {

class LohaChange final : public WeightChange {
 public:
  LohaChange(std::vector<tensor::ParameterPtr> factors, double scale)
      : factors_(std::move(factors)), scale_(scale) {}

 protected:
  at::Tensor delta(const at::Tensor&) const override {
    return at::mm(wide(factors_[0]), wide(factors_[1])) *
           at::mm(wide(factors_[2]), wide(factors_[3])) * scale_;
  }

 private:
  std::vector<tensor::ParameterPtr> factors_;  // W1a [O, R], W1b [R, I], W2a, W2b
  double scale_;
};

void attach_loha(Builder& builder) {
  for (model::Linear* linear : builder.targeted()) {
    const auto r = static_cast<int64_t>(
        builder.by_pattern("rank_pattern", linear->name, static_cast<double>(builder.count("r"))));
    const double alpha = builder.by_pattern("alpha_pattern", linear->name, builder.number("alpha"));
    std::vector<tensor::ParameterPtr> factors;
    for (const char* name : {"1_a", "1_b", "2_a", "2_b"}) {
      const bool left = name[2] == 'a';
      const int64_t fan_in = left ? r : linear->in_features;
      factors.push_back(builder.add(
          linear->unit,
          linear->name + ".hada_w" + name,
          left ? std::vector<int64_t>{linear->out_features, r}
               : std::vector<int64_t>{r, linear->in_features},
          std::string_view(name) == "2_b" ? Initial::constant(0) : Initial::kaiming(fan_in)));
    }
    builder.change(*linear, std::make_unique<LohaChange>(factors, alpha / static_cast<double>(r)));
  }
}

}  // namespace

Method loha_method() {
  return {.name = "loha",
          .peft_type = "LOHA",
          .text = "the Hadamard product of two low-rank updates (arXiv 2108.06098)",
          .settings = {{"r", 8, "rank of each factor; the update's is up to r * r"},
                       {"alpha", 8.0, "scale: alpha / r"},
                       {"rank_pattern", core::Json::object(), "module expression -> rank"},
                       {"alpha_pattern", core::Json::object(), "module expression -> alpha"}},
          .targets = {"all-linear"},
          .attach = attach_loha};
}

}  // namespace kamerton::tuning
