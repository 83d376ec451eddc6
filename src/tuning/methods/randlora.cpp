// SPDX-License-Identifier: Apache-2.0
// RandLora (arXiv 2502.00987): a full-rank update as the sum of random low-rank ones, each scaled
// by trained diagonals; the random bases are shared by all modules.
#include <algorithm>

#include <ATen/ATen.h>

#include "../method.h"
#include "../torch_random.h"

namespace kamerton::tuning {
namespace {

class RandLoraChange final : public ModuleChange {
 public:
  struct Parts {
    std::shared_ptr<at::Tensor> a, b;  // [R, 1, min], [max, bases, R]
    tensor::ParameterPtr lambda;       // [R, bases]
    tensor::ParameterPtr gamma;        // [bases, min]
    double scale;
    double dropout;
  };
  explicit RandLoraChange(Parts parts) : p_(std::move(parts)) {}

  at::Tensor apply(const ModuleUse& use, const at::Tensor& x) const override {
    const auto [down, up] = bases(use.linear.in_features, use.linear.out_features);
    const at::Tensor kept = use.dropped(x, p_.dropout).to(at::kFloat);
    const at::Tensor update = at::mm(at::mm(kept, down.t()), up.t());
    return use.linear.product(x) + (update * p_.scale).to(x.scalar_type());
  }
  at::Tensor merged(const at::Tensor& weight) const override {
    const auto [down, up] = bases(weight.size(1), weight.size(0));
    return weight + at::mm(up, down) * p_.scale;
  }

 private:
  /// [R bases, I] and [O, R bases]; the trained diagonals are on the smaller side.
  std::pair<at::Tensor, at::Tensor> bases(int64_t in, int64_t out) const {
    const int64_t small = std::min(in, out);
    const int64_t count = p_.lambda->shape[1];
    const at::Tensor fixed =
        p_.b->narrow(0, 0, std::max(in, out)).narrow(1, 0, count).flatten(1);  // [max, bases R]
    const at::Tensor trained =
        (wide(p_.lambda).unsqueeze(2) * p_.a->narrow(2, 0, small) * wide(p_.gamma).unsqueeze(0))
            .flatten(0, 1);  // [R bases, min]
    return small == in ? std::pair(trained, fixed) : std::pair(fixed.t(), trained.t());
  }

  Parts p_;
};

std::vector<std::string> keys_of(const std::vector<model::Linear*>& targets, const char* name) {
  std::vector<std::string> keys = {"base_model" + std::string(name)};
  for (const model::Linear* linear : targets) {
    keys.push_back("base_model.model." + linear->name + name);
  }
  return keys;
}

int64_t bases_for(int64_t size, int64_t r) {
  return (size + r - 1) / r;
}

void attach_randlora(Builder& builder) {
  const std::vector<model::Linear*> targets = builder.targeted();
  const int64_t r = builder.count("r");
  int64_t small = 0;
  int64_t large = 0;
  int64_t in = 0;
  int64_t out = 0;
  for (const model::Linear* linear : targets) {
    in = std::max(in, linear->in_features);
    out = std::max(out, linear->out_features);
  }
  small = std::min(in, out);
  large = std::max(in, out);
  TorchRandom random(static_cast<uint64_t>(builder.count("projection_prng_key")));
  const at::Tensor a = random.uniform({r, 1, small}, 1.0);
  const at::Tensor b = random.uniform({large, bases_for(small, r), r}, 1.0);
  const auto shared_a = builder.constant(keys_of(targets, ".randlora_A"), a / a.std());
  const auto shared_b = builder.constant(keys_of(targets, ".randlora_B"), b / b.std());
  for (model::Linear* linear : targets) {
    const int64_t least = std::min(linear->in_features, linear->out_features);
    const int64_t count = bases_for(least, r);
    auto lambda = builder.add(
        linear->unit, linear->name + ".randlora_lambda", {r, count}, Initial::constant(0));
    auto gamma = builder.add(linear->unit,
                             linear->name + ".randlora_gamma",
                             {count, least},
                             Initial::constant(1.0 / static_cast<double>(std::max(count, least))));
    builder.change(*linear,
                   std::make_unique<RandLoraChange>(RandLoraChange::Parts{
                       shared_a,
                       shared_b,
                       lambda,
                       gamma,
                       builder.number("randlora_alpha") / static_cast<double>(r),
                       builder.number("randlora_dropout")}));
  }
}

}  // namespace

Method randlora_method() {
  return {.name = "randlora",
          .peft_type = "RANDLORA",
          .text = "a full-rank update from random bases (arXiv 2502.00987)",
          .settings = {{"r", 32, "rank of a base; less means more trained numbers"},
                       {"randlora_alpha", 640.0, "scale: alpha / r"},
                       {"randlora_dropout", 0.0, "probability that an input is dropped"},
                       {"projection_prng_key", 0, "seed of the bases"},
                       {"save_projection", true, "the bases are in the file"}},
          .targets = {"all-linear"},
          .attach = attach_randlora};
}

}  // namespace kamerton::tuning
