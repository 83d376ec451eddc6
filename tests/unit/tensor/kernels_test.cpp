// SPDX-License-Identifier: Apache-2.0
#include "kamerton/tensor/kernels.h"

#include "reference.h"

namespace kamerton::tensor {
namespace {

using test::double_leaf;
using test::largest_difference;
using test::parameter_of;
using test::random_tensor;

at::Tensor naive_norm(const at::Tensor& x, const at::Tensor& w, double eps, bool plus_one) {
  return x * (x.square().mean(-1, true) + eps).rsqrt() * (plus_one ? w + 1.0 : w);
}

TEST(RmsNorm, EqualsTheFormulaAndItsGradientInDoublePrecision) {
  for (const bool plus_one : {false, true}) {
    for (const int64_t width : {1, 7, 48, 290}) {
      const at::Tensor x = random_tensor({73, width}, 1).requires_grad_(true);
      const ParameterPtr w = parameter_of(random_tensor({width}, 2));
      const at::Tensor dy = random_tensor({73, width}, 3);
      const at::Tensor x64 = double_leaf(x);
      const at::Tensor w64 = double_leaf(w->value);
      const at::Tensor want = naive_norm(x64, w64, 1e-5, plus_one);
      test::backward(want, dy);

      const at::Tensor got = rms_norm(x, w, 1e-5, plus_one);
      test::backward(got, dy);

      EXPECT_LT(largest_difference(got, want), 2e-6) << width;
      // A row of one element has a gradient of differences: large values cancel.
      EXPECT_LT(largest_difference(x.grad(), x64.grad()), width == 1 ? 1e-2 : 2e-5) << width;
      EXPECT_LT(largest_difference(w->value.grad(), w64.grad()), 1e-4) << width;
    }
  }
}

TEST(AddRmsNorm, PassesTheGradientOfSumAndNormToBothInputs) {
  const at::Tensor x = random_tensor({50, 36}, 1).requires_grad_(true);
  const at::Tensor delta = random_tensor({50, 36}, 2).requires_grad_(true);
  const ParameterPtr w = parameter_of(random_tensor({36}, 3));
  const at::Tensor d_sum = random_tensor({50, 36}, 4);
  const at::Tensor d_norm = random_tensor({50, 36}, 5);
  const at::Tensor a = double_leaf(x);
  const at::Tensor b = double_leaf(delta);
  const at::Tensor sum64 = a + b;
  const at::Tensor norm64 = naive_norm(sum64, w->value.detach().to(at::kDouble), 1e-6, false);
  torch::autograd::backward({sum64, norm64}, {d_sum.to(at::kDouble), d_norm.to(at::kDouble)});

  const auto [sum, norm] = add_rms_norm(x, delta, w, 1e-6);
  torch::autograd::backward({sum, norm}, {d_sum, d_norm});

  EXPECT_LT(largest_difference(sum, sum64), 1e-6);
  EXPECT_LT(largest_difference(norm, norm64), 2e-6);
  EXPECT_LT(largest_difference(x.grad(), a.grad()), 1e-5);
  EXPECT_TRUE(at::equal(x.grad(), delta.grad()));
}

TEST(RmsNorm, SumsTheWeightGradientAlikeOnAnyNumberOfThreads) {
  std::vector<at::Tensor> gradients;
  for (const int threads : {1, 2, 3}) {
    at::set_num_threads(threads);
    const at::Tensor x = random_tensor({1000, 33}, 1).requires_grad_(true);
    const ParameterPtr w = parameter_of(random_tensor({33}, 2));
    test::backward(rms_norm(x, w, 1e-6), random_tensor({1000, 33}, 3));
    gradients.push_back(w->value.grad());
  }
  at::set_num_threads(1);
  EXPECT_TRUE(at::equal(gradients[0], gradients[1]));
  EXPECT_TRUE(at::equal(gradients[0], gradients[2]));
}

TEST(Swiglu, EqualsTheFormulaAndItsGradientInDoublePrecision) {
  const at::Tensor gate = random_tensor({61, 37}, 1, 4.0).requires_grad_(true);
  const at::Tensor up = random_tensor({61, 37}, 2).requires_grad_(true);
  const at::Tensor dout = random_tensor({61, 37}, 3);
  const at::Tensor g = double_leaf(gate);
  const at::Tensor u = double_leaf(up);
  const at::Tensor want = g * at::sigmoid(g) * u;
  test::backward(want, dout);

  const at::Tensor got = swiglu(gate, up);
  test::backward(got, dout);

  EXPECT_LT(largest_difference(got, want), 1e-5);
  EXPECT_LT(largest_difference(gate.grad(), g.grad()), 1e-5);
  EXPECT_LT(largest_difference(up.grad(), u.grad()), 1e-5);
}

TEST(Swiglu, SaturatesWithoutOverflowAndKeepsNotANumber) {
  const at::Tensor gate = at::tensor({-1000.0f, 1000.0f, std::nanf("")});
  const at::Tensor out = swiglu(gate, at::ones({3}));
  EXPECT_NEAR(out[0].item<float>(), 0.0f, 1e-30);
  EXPECT_EQ(out[1].item<float>(), 1000.0f);
  EXPECT_TRUE(std::isnan(out[2].item<float>()));
}

at::Tensor naive_activation(Activation activation, const at::Tensor& x) {
  if (activation == Activation::Silu) {
    return x * at::sigmoid(x);
  }
  if (activation == Activation::Gelu) {
    return 0.5 * x * (1.0 + at::erf(x / std::sqrt(2.0)));
  }
  return 0.5 * x * (1.0 + at::tanh(std::sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x)));
}

TEST(Gated, EveryActivationEqualsItsFormulaApartFusedAndAlone) {
  for (const auto f : {Activation::Silu, Activation::GeluTanh, Activation::Gelu}) {
    const at::Tensor both = random_tensor({61, 74}, 1, 3.0).requires_grad_(true);
    const at::Tensor dout = random_tensor({61, 37}, 3);
    const at::Tensor both64 = double_leaf(both);
    const at::Tensor g64 = both64.narrow(1, 0, 37);
    const at::Tensor want = naive_activation(f, g64) * both64.narrow(1, 37, 37);
    test::backward(want, dout);
    const at::Tensor gate = both.detach().narrow(1, 0, 37).clone().requires_grad_(true);
    const at::Tensor up = both.detach().narrow(1, 37, 37).clone().requires_grad_(true);
    const at::Tensor alone = both.detach().narrow(1, 0, 37).clone().requires_grad_(true);
    const at::Tensor alone64 = double_leaf(alone);
    const at::Tensor want_alone = naive_activation(f, alone64);
    test::backward(want_alone, dout);

    const at::Tensor fused = gated(f, both);
    const at::Tensor apart = gated(f, gate, up);
    const at::Tensor plain = activate(f, alone);
    test::backward(fused, dout);
    test::backward(apart, dout);
    test::backward(plain, dout);

    EXPECT_LT(largest_difference(fused, want), 1e-5);
    EXPECT_TRUE(at::equal(fused, apart));
    EXPECT_LT(largest_difference(both.grad(), both64.grad()), 3e-5);
    EXPECT_TRUE(at::equal(both.grad(), at::cat({gate.grad(), up.grad()}, 1)));
    EXPECT_LT(largest_difference(plain, want_alone), 2e-6);
    EXPECT_LT(largest_difference(alone.grad(), alone64.grad()), 5e-6);
  }
}

TEST(Gated, SaturatesAtBothEndsWithoutOverflow) {
  for (const auto f : {Activation::Silu, Activation::GeluTanh, Activation::Gelu}) {
    const at::Tensor out = activate(f, at::tensor({-1000.0f, 1000.0f, std::nanf("")}));
    EXPECT_NEAR(out[0].item<float>(), 0.0f, 1e-3);
    EXPECT_EQ(out[1].item<float>(), 1000.0f);
    EXPECT_TRUE(std::isnan(out[2].item<float>()));
  }
}

TEST(LayerNorm, EqualsTheFormulaAndItsGradientInDoublePrecision) {
  for (const bool with_bias : {true, false}) {
    const at::Tensor x = (random_tensor({73, 48}, 1) + 5.0).requires_grad_(true);
    const at::Tensor delta = random_tensor({73, 48}, 6).requires_grad_(true);
    const ParameterPtr w = parameter_of(random_tensor({48}, 2));
    const ParameterPtr b = with_bias ? parameter_of(random_tensor({48}, 4)) : nullptr;
    const at::Tensor dy = random_tensor({73, 48}, 3);
    const at::Tensor dsum = random_tensor({73, 48}, 5);
    const at::Tensor x64 = double_leaf(x);
    const at::Tensor delta64 = double_leaf(delta);
    const at::Tensor w64 = double_leaf(w->value);
    const at::Tensor b64 = double_leaf(with_bias ? b->value : at::zeros({48}));
    const at::Tensor sum64 = x64 + delta64;
    const at::Tensor y64 = at::layer_norm(x64, {48}, w64, b64, 1e-5);
    const at::Tensor both64 = at::layer_norm(sum64, {48}, w64, b64, 1e-5);
    torch::autograd::backward({y64, sum64, both64},
                              {dy.to(at::kDouble), dsum.to(at::kDouble), dy.to(at::kDouble)});

    const at::Tensor y = layer_norm(x, w, b, 1e-5);
    const auto [sum, both] = add_layer_norm(x, delta, w, b, 1e-5);
    torch::autograd::backward({y, sum, both}, {dy, dsum, dy});

    EXPECT_LT(largest_difference(y, y64), 5e-6);
    EXPECT_LT(largest_difference(sum, sum64), 2e-6);
    EXPECT_LT(largest_difference(both, both64), 5e-6);
    EXPECT_LT(largest_difference(x.grad(), x64.grad()), 2e-5);
    EXPECT_LT(largest_difference(delta.grad(), delta64.grad()), 2e-5);
    EXPECT_LT(largest_difference(w->value.grad(), w64.grad()), 2e-4);
    if (with_bias) {
      EXPECT_LT(largest_difference(b->value.grad(), b64.grad()), 1e-4);
    }
  }
}

TEST(Kernels, BfloatResultsAreTheRoundedFloatOnes) {
  const at::Tensor x = random_tensor({20, 64}, 1).to(at::kBFloat16);
  const at::Tensor y = random_tensor({20, 64}, 2).to(at::kBFloat16);
  const ParameterPtr w = parameter_of(random_tensor({64}, 3).to(at::kBFloat16));
  const ParameterPtr w32 = parameter_of(w->value.detach().to(at::kFloat));

  EXPECT_TRUE(at::equal(rms_norm(x, w, 1e-6).detach(),
                        rms_norm(x.to(at::kFloat), w32, 1e-6).detach().to(at::kBFloat16)));
  EXPECT_TRUE(
      at::equal(swiglu(x, y), swiglu(x.to(at::kFloat), y.to(at::kFloat)).to(at::kBFloat16)));
}

TEST(AllFinite, FindsOneBadValueAnywhere) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    at::Tensor x = random_tensor({70001}, 1, 1e30).to(type);
    EXPECT_TRUE(all_finite(x));
    for (const float bad : {std::nanf(""), -INFINITY}) {
      at::Tensor broken = x.clone();
      broken[69999] = bad;
      EXPECT_FALSE(all_finite(broken));
    }
  }
}

}  // namespace
}  // namespace kamerton::tensor
