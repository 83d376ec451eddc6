// SPDX-License-Identifier: Apache-2.0
#include "update_kernels.h"

#include <cmath>
#include <cstring>

#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include "kamerton/core/random.h"

namespace kamerton::optim {
namespace {

at::Tensor noise(int64_t n, const char* name, bool positive = false) {
  const core::RandomStream random(3, name);
  auto values = at::empty({n}, at::kFloat);
  for (int64_t i = 0; i < n; ++i) {
    const double x = random.normal(static_cast<uint64_t>(i));
    values.data_ptr<float>()[i] = static_cast<float>(positive ? x * x : x);
  }
  return values;
}

struct Arrays {
  at::Tensor param, grad, m, v;
  explicit Arrays(int64_t n)
      : param(noise(n, "param")),
        grad(noise(n, "grad")),
        m(noise(n, "m")),
        v(noise(n, "v", true)) {}
  float* p() const { return param.data_ptr<float>(); }
};

AdamwFactors factors_of(double lr, double wd, double b1, double b2, int t, double clip) {
  AdamwFactors f;
  f.clip = static_cast<float>(clip);
  f.keep = static_cast<float>(1 - lr * wd);
  f.one_minus_beta1 = static_cast<float>(1 - b1);
  f.beta2 = static_cast<float>(b2);
  f.one_minus_beta2 = static_cast<float>(1 - b2);
  f.step_size = static_cast<float>(lr / (1 - std::pow(b1, t)));
  f.inv_sqrt_bias2 = static_cast<float>(1 / std::sqrt(1 - std::pow(b2, t)));
  return f;
}

TEST(UpdateKernels, AdamwEqualsTorchsFusedOne) {
  const int64_t n = 1003;
  Arrays ours(n);
  Arrays torchs(n);
  auto step = at::full({}, 4.0F);

  adamw(ours.p(),
        nullptr,
        ours.grad.data_ptr<float>(),
        ours.m.data_ptr<float>(),
        ours.v.data_ptr<float>(),
        n,
        factors_of(1e-2, 0.1, 0.9, 0.95, 5, 1.0));
  step.add_(1);
  at::_fused_adamw_({torchs.param},
                    {torchs.grad},
                    {torchs.m},
                    {torchs.v},
                    {},
                    {step},
                    1e-2,
                    0.9,
                    0.95,
                    0.1,
                    1e-8,
                    false,
                    false,
                    {},
                    {});

  EXPECT_TRUE(at::allclose(ours.param, torchs.param, 1e-6, 1e-7));
  EXPECT_TRUE(at::allclose(ours.m, torchs.m, 1e-6, 1e-7));
  EXPECT_TRUE(at::allclose(ours.v, torchs.v, 1e-6, 1e-7));
}

TEST(UpdateKernels, AdamwFollowsTheFormulaInDoublePrecision) {
  const int64_t n = 517;
  Arrays a(n);
  const auto p0 = a.param.to(at::kDouble);
  const auto g = a.grad.to(at::kDouble) * 0.25;
  const auto m = a.m.to(at::kDouble) * 0.9 + g * 0.1;
  const auto v = a.v.to(at::kDouble) * 0.999 + g * g * 0.001;
  const auto expected = p0 * (1 - 1e-3 * 0.1) - 1e-3 * (m / (1 - std::pow(0.9, 3))) /
                                                    ((v / (1 - std::pow(0.999, 3))).sqrt() + 1e-8);

  adamw(a.p(),
        nullptr,
        a.grad.data_ptr<float>(),
        a.m.data_ptr<float>(),
        a.v.data_ptr<float>(),
        n,
        factors_of(1e-3, 0.1, 0.9, 0.999, 3, 0.25));

  EXPECT_LT((a.param.to(at::kDouble) - expected).abs().max().item<double>(), 5e-7);
}

TEST(UpdateKernels, BitsDoNotDependOnWhereARangeEnds) {
  const int64_t n = 333;
  Arrays whole(n);
  Arrays pieces(n);
  const auto f = factors_of(1e-2, 0.1, 0.9, 0.95, 5, 0.7);
  const auto run = [&](Arrays& a, int64_t lo, int64_t hi) {
    adamw(a.p() + lo,
          nullptr,
          a.grad.data_ptr<float>() + lo,
          a.m.data_ptr<float>() + lo,
          a.v.data_ptr<float>() + lo,
          hi - lo,
          f);
  };

  run(whole, 0, n);
  for (const auto& [lo, hi] :
       {std::pair<int64_t, int64_t>{0, 1}, {1, 8}, {8, 21}, {21, 150}, {150, 332}, {332, 333}}) {
    run(pieces, lo, hi);
  }

  EXPECT_EQ(std::memcmp(whole.p(), pieces.p(), n * sizeof(float)), 0);
  EXPECT_EQ(std::memcmp(whole.v.data_ptr<float>(), pieces.v.data_ptr<float>(), n * sizeof(float)),
            0);
}

TEST(UpdateKernels, LowPrecisionCopyIsTorchsRounding) {
  const int64_t n = 259;
  Arrays a(n);
  a.p()[7] = std::nanf("");
  a.p()[8] = INFINITY;
  auto low = at::empty({n}, at::kBFloat16);

  adamw(a.p(),
        reinterpret_cast<uint16_t*>(low.data_ptr<at::BFloat16>()),
        a.grad.data_ptr<float>(),
        a.m.data_ptr<float>(),
        a.v.data_ptr<float>(),
        n,
        factors_of(1e-2, 0.1, 0.9, 0.95, 5, 1.0));

  EXPECT_TRUE(
      at::allclose(low.to(at::kFloat), a.param.to(at::kBFloat16).to(at::kFloat), 0.0, 0.0, true));
}

TEST(UpdateKernels, SgdIsTorchsWithCoupledDecay) {
  const int64_t n = 100;
  Arrays a(n);
  const auto g = a.grad + 0.1 * a.param;
  const auto buffer = 0.9 * a.m + g;
  const auto expected = a.param - 0.05 * buffer;
  const auto plain = a.param - 0.05 * g;
  Arrays b(n);

  sgd(a.p(),
      nullptr,
      a.grad.data_ptr<float>(),
      a.m.data_ptr<float>(),
      n,
      {.clip = 1.0F, .weight_decay = 0.1F, .momentum = 0.9F, .lr = 0.05F});
  sgd(b.p(),
      nullptr,
      b.grad.data_ptr<float>(),
      nullptr,
      n,
      {.clip = 1.0F, .weight_decay = 0.1F, .momentum = 0.0F, .lr = 0.05F});

  EXPECT_TRUE(at::allclose(a.param, expected, 1e-6, 1e-7));
  EXPECT_TRUE(at::allclose(a.m, buffer, 1e-6, 1e-7));
  EXPECT_TRUE(at::allclose(b.param, plain, 1e-6, 1e-7));
}

TEST(UpdateKernels, SumOfSquaresIsExactEnoughAndSeesNotANumber) {
  const auto values = noise(10007, "squares");
  const double expected = values.to(at::kDouble).pow(2).sum().item<double>();

  EXPECT_NEAR(sum_of_squares(values.data_ptr<float>(), values.numel()), expected, 1e-9 * expected);
  values.data_ptr<float>()[10006] = std::nanf("");
  EXPECT_TRUE(std::isnan(sum_of_squares(values.data_ptr<float>(), values.numel())));
  const float huge = 3e38F;
  EXPECT_TRUE(std::isfinite(sum_of_squares(&huge, 1)));
}

}  // namespace
}  // namespace kamerton::optim
