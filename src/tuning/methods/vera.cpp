// SPDX-License-Identifier: Apache-2.0
// VeRA (arXiv 2310.11454): y = W x + b * (B (d * (A x))). A and B are random, shared by all modules
// and never trained; each module uses their first columns and rows.
#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>

#include "../method.h"
#include "../torch_random.h"

namespace kamerton::tuning {
namespace {

class VeraChange final : public ModuleChange {
 public:
  struct Parts {
    std::shared_ptr<at::Tensor> a, b;
    tensor::ParameterPtr lambda_d, lambda_b;
    double dropout;
  };
  explicit VeraChange(Parts parts) : p_(std::move(parts)) {}

  at::Tensor apply(const ModuleUse& use, const at::Tensor& x) const override {
    const at::Tensor a = p_.a->narrow(1, 0, use.linear.in_features).to(x.scalar_type());
    const at::Tensor b = p_.b->narrow(0, 0, use.linear.out_features).to(x.scalar_type());
    const at::Tensor narrow = at::mm(use.dropped(x, p_.dropout), a.t()) * p_.lambda_d->value;
    return use.linear.product(x) + at::mm(narrow, b.t()) * p_.lambda_b->value;
  }
  at::Tensor merged(const at::Tensor& weight) const override {
    const at::Tensor a = p_.a->narrow(1, 0, weight.size(1));
    const at::Tensor b = p_.b->narrow(0, 0, weight.size(0));
    return weight + at::mm(wide(p_.lambda_b).unsqueeze(1) * b, wide(p_.lambda_d).unsqueeze(1) * a);
  }

 private:
  Parts p_;
};

void attach_vera(Builder& builder) {
  const std::vector<model::Linear*> targets = builder.targeted();
  int64_t in = 0;
  int64_t out = 0;
  for (const model::Linear* linear : targets) {
    in = std::max(in, linear->in_features);
    out = std::max(out, linear->out_features);
  }
  const int64_t r = builder.count("r");
  TorchRandom random(static_cast<uint64_t>(builder.count("projection_prng_key")));
  const auto draw = [&](int64_t rows, int64_t columns) {
    return random.uniform({rows, columns}, std::sqrt(6.0 / static_cast<double>(columns)));
  };
  const at::Tensor first = draw(r, in);
  const auto a = builder.constant({"base_model.vera_A"}, first);
  const auto b = builder.constant({"base_model.vera_B"}, draw(out, r));
  for (model::Linear* linear : targets) {
    auto lambda_b = builder.add(linear->unit,
                                linear->name + ".vera_lambda_b",
                                {linear->out_features},
                                Initial::constant(0));
    auto lambda_d = builder.add(linear->unit,
                                linear->name + ".vera_lambda_d",
                                {r},
                                Initial::constant(builder.number("d_initial")));
    builder.change(*linear,
                   std::make_unique<VeraChange>(VeraChange::Parts{
                       a, b, lambda_d, lambda_b, builder.number("vera_dropout")}));
  }
}

}  // namespace

Method vera_method() {
  return {.name = "vera",
          .peft_type = "VERA",
          .text = "trained vectors around shared random projections (arXiv 2310.11454)",
          .settings = {{"r", 256, "rank of the shared projections"},
                       {"projection_prng_key", 0, "seed of the projections (torch's generator)"},
                       {"save_projection", true, "the projections are in the file"},
                       {"vera_dropout", 0.0, "probability that an input of A is dropped"},
                       {"d_initial", 0.1, "start of the inner vector"}},
          .targets = {"all-linear"},
          .attach = attach_vera};
}

}  // namespace kamerton::tuning
