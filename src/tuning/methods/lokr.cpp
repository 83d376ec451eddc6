// SPDX-License-Identifier: Apache-2.0
// LoKr (LyCORIS, arXiv 2309.14859): delta = alpha / r (W1 kron W2); a factor that is large is
// itself of low rank.
#include <algorithm>

#include <ATen/ATen.h>

#include "../method.h"

namespace kamerton::tuning {
namespace {

/// A factor, whole or as a product.
struct KronFactor {
  tensor::ParameterPtr whole, a, b;
  at::Tensor value() const { return whole != nullptr ? wide(whole) : at::mm(wide(a), wide(b)); }
};

class LokrChange final : public WeightChange {
 public:
  LokrChange(KronFactor first, KronFactor second, double scale)
      : first_(std::move(first)), second_(std::move(second)), scale_(scale) {}

 protected:
  at::Tensor delta(const at::Tensor&) const override {
    return at::kron(first_.value(), second_.value()) * scale_;
  }

 private:
  KronFactor first_, second_;
  double scale_;
};

/// LyCORIS: two factors of n near its root, or near `factor`; the smaller one first.
std::pair<int64_t, int64_t> factorise(int64_t n, int64_t factor) {
  if (factor > 0 && n % factor == 0) {
    return {factor, n / factor};
  }
  const int64_t most = factor == -1 ? n : factor;
  int64_t small = 1;
  int64_t large = n;
  while (small < large) {
    int64_t next = small + 1;
    while (n % next != 0) {
      ++next;
    }
    if (next + n / next > small + large || next > most) {
      break;
    }
    small = next;
    large = n / next;
  }
  return {std::min(small, large), std::max(small, large)};
}

struct Plan {
  std::pair<int64_t, int64_t> out, in;
  int64_t r = 0;
};

KronFactor add_factor(Builder& builder,
                      const model::Linear& linear,
                      const std::string& name,
                      std::pair<int64_t, int64_t> shape,
                      bool whole,
                      int64_t r,
                      bool zero) {
  const auto add = [&](const std::string& end, std::vector<int64_t> of, bool is_zero) {
    const Initial initial = is_zero ? Initial::constant(0) : Initial::kaiming(of[1]);
    return builder.add(linear.unit, linear.name + name + end, of, initial);
  };
  if (whole) {
    return {add("", {shape.first, shape.second}, zero), nullptr, nullptr};
  }
  auto a = add("_a", {shape.first, r}, zero);
  return {nullptr, a, add("_b", {r, shape.second}, false)};
}

void attach_lokr(Builder& builder) {
  const int64_t factor = builder.count("decompose_factor");
  for (model::Linear* linear : builder.targeted()) {
    Plan plan{factorise(linear->out_features, factor), factorise(linear->in_features, factor)};
    plan.r = static_cast<int64_t>(
        builder.by_pattern("rank_pattern", linear->name, static_cast<double>(builder.count("r"))));
    const auto low = [&](int64_t a, int64_t b) { return 2 * plan.r < std::max(a, b); };
    const bool first_low = builder.flag("decompose_both") && low(plan.out.first, plan.in.first);
    const bool second_low = low(plan.out.second, plan.in.second);
    KronFactor first = add_factor(
        builder, *linear, ".lokr_w1", {plan.out.first, plan.in.first}, !first_low, plan.r, true);
    KronFactor second = add_factor(builder,
                                   *linear,
                                   ".lokr_w2",
                                   {plan.out.second, plan.in.second},
                                   !second_low,
                                   plan.r,
                                   false);
    const double alpha = builder.by_pattern("alpha_pattern", linear->name, builder.number("alpha"));
    builder.change(*linear,
                   std::make_unique<LokrChange>(
                       std::move(first), std::move(second), alpha / static_cast<double>(plan.r)));
  }
}

}  // namespace

Method lokr_method() {
  return {
      .name = "lokr",
      .peft_type = "LOKR",
      .text = "the Kronecker product of two small matrices (arXiv 2309.14859)",
      .settings = {{"r", 8, "rank of a factor that is itself decomposed"},
                   {"alpha", 8.0, "scale: alpha / r"},
                   {"decompose_both", false, "also the first factor"},
                   {"decompose_factor", -1, "wished size of the first factor, -1: near the root"},
                   {"rank_pattern", core::Json::object(), "module expression -> rank"},
                   {"alpha_pattern", core::Json::object(), "module expression -> alpha"}},
      .targets = {"all-linear"},
      .attach = attach_lokr};
}

}  // namespace kamerton::tuning
