// SPDX-License-Identifier: Apache-2.0
#include "packed_weight.h"

#include <cmath>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace kamerton::tuning {
namespace {

/// Values without a random generator, of both signs and many sizes.
at::Tensor weight_of(int64_t out, int64_t in) {
  const at::Tensor i = at::arange(out * in, at::kDouble);
  return ((i * 0.7391).sin() * (0.02 + (i * 0.0137).cos().abs())).to(at::kFloat).view({out, in});
}

/// A packed weight with memory of its own.
template <class Packed>
std::shared_ptr<Packed> packed_of(const at::Tensor& weight) {
  auto packed = std::make_shared<Packed>("w", weight.size(0), weight.size(1));
  packed->parameter()->value = packed->packed(weight);
  EXPECT_EQ(packed->parameter()->value.numel(), packed->bytes());
  return packed;
}

/// The formula, value by value: the nearest of the 16, times the block's largest magnitude.
at::Tensor by_formula(const at::Tensor& weight) {
  at::Tensor result = at::empty_like(weight);
  const auto* x = weight.const_data_ptr<float>();
  auto* y = result.mutable_data_ptr<float>();
  for (int64_t block = 0; block < weight.numel(); block += Nf4Weight::kBlock) {
    const int64_t end = std::min(block + Nf4Weight::kBlock, weight.numel());
    float largest = 0;
    for (int64_t i = block; i < end; ++i) {
      largest = std::max(largest, std::abs(x[i]));
    }
    for (int64_t i = block; i < end; ++i) {
      float best = 2;
      for (int k = 0; k < 16; ++k) {
        const float value = Nf4Weight::code_book()[k];
        best = std::abs(value - x[i] / largest) < std::abs(best - x[i] / largest) ? value : best;
      }
      y[i] = best * largest;
    }
  }
  return result;
}

TEST(Nf4Weight, IsTheFormulaUpToTheEightBitsOfItsScales) {
  const at::Tensor weight = weight_of(48, 100);  // the last block is not full
  const auto packed = packed_of<Nf4Weight>(weight);

  const at::Tensor exact = by_formula(weight);
  const at::Tensor got = packed->whole();
  EXPECT_LT((got - exact).abs().max().item<double>(), 0.01);
  const at::Tensor scales = packed->wide_scales(0, 75);
  const at::Tensor ratio = got.view({-1}).narrow(0, 0, 64) / scales[0];
  EXPECT_LT(
      (ratio * exact.view({-1}).narrow(0, 0, 64).abs().max() - exact.view({-1}).narrow(0, 0, 64))
          .abs()
          .max()
          .item<double>(),
      1e-6);
}

/// What bitsandbytes 0.50.2 makes of weight_of(8, 40): quantize_4bit(blocksize=64,
/// compress_statistics=True, quant_type="nf4").
TEST(Nf4Weight, EqualsBitsandbytes) {
  const auto packed = packed_of<Nf4Weight>(weight_of(8, 40));

  const std::vector<int> codes = {126, 254, 146, 0,   59, 255, 213, 16,  23,  239, 233,
                                  32,  3,   190, 252, 81, 1,   125, 254, 147, 17,  75};
  for (size_t i = 0; i < codes.size(); ++i) {
    EXPECT_EQ(packed->codes()[static_cast<int64_t>(i)].item<int>(), codes[i]) << i;
  }
  const std::vector<int> scales = {217, 0, 63, 216, 197};
  for (size_t i = 0; i < scales.size(); ++i) {
    EXPECT_EQ(packed->scales()[static_cast<int64_t>(i)].item<int>(), scales[i]) << i;
  }
  const at::Tensor flat = packed->whole().view({-1});
  const std::vector<std::pair<int64_t, double>> values = {{0, 0.0},
                                                          {1, 0.7351194620132446},
                                                          {63, 0.3436001241207123},
                                                          {64, -0.11784454435110092},
                                                          {65, -0.4440169036388397},
                                                          {200, -0.18720996379852295},
                                                          {319, -0.08595903217792511}};
  for (const auto& [i, value] : values) {
    EXPECT_NEAR(flat[i].item<double>(), value, 1e-6) << i;
  }
}

TEST(Nf4Weight, RowsOfAnyRangeAreThoseOfTheWhole) {
  // Rows begin within blocks and bytes.
  const auto packed = packed_of<Nf4Weight>(weight_of(30, 37));
  const at::Tensor whole = packed->whole();
  EXPECT_TRUE(packed->rows(7, 11).equal(whole.narrow(0, 7, 11)));
  EXPECT_TRUE(packed->rows(29, 1).equal(whole.narrow(0, 29, 1)));
}

TEST(Nf4Weight, TakesTheBytesOfTheFormula) {
  const Nf4Weight packed("w", 4096, 4096);
  const double bits = 8.0 * static_cast<double>(packed.bytes()) / (4096.0 * 4096.0);
  EXPECT_NEAR(bits, 4 + 8.0 / 64 + 32.0 / (64 * 256), 1e-4);  // 4.127
  const auto small = packed_of<Nf4Weight>(weight_of(64, 96));
  EXPECT_EQ(small->codes().numel(), 64 * 96 / 2);
  EXPECT_EQ(small->scales().numel(), 96);
  EXPECT_EQ(small->bytes(), 64 * 96 / 2 + 96 + 4 + 4);
}

TEST(Nf4Weight, DynamicMapIsAscendingWithBothEnds) {
  const at::Tensor& map = Nf4Weight::dynamic_map();
  ASSERT_EQ(map.numel(), 256);
  EXPECT_FLOAT_EQ(map[255].item<float>(), 1.0F);
  EXPECT_FLOAT_EQ(map[0].item<float>(), -0.9929687F);
  EXPECT_EQ(map.eq(0).sum().item<int64_t>(), 1);
  EXPECT_TRUE((map.narrow(0, 1, 255) - map.narrow(0, 0, 255)).gt(0).all().item<bool>());
}

template <class Packed>
void expect_product() {
  const auto packed = packed_of<Packed>(weight_of(70, 40));
  const at::Tensor x = weight_of(9, 40).clone().requires_grad_(true);
  const at::Tensor y = weight_of(9, 40).clone().requires_grad_(true);
  const at::Tensor slope = weight_of(9, 70);

  const at::Tensor out = packed->product(x);
  const at::Tensor wide = at::mm(y, packed->whole().t());
  (out * slope).sum().backward();
  (wide * slope).sum().backward();

  EXPECT_LT((out - wide).abs().max().template item<double>(), 1e-5);
  EXPECT_LT((x.grad() - y.grad()).abs().max().template item<double>(), 1e-5);
}

TEST(PackedRows, ProductAndItsGradientAreThoseOfTheWideWeight) {
  expect_product<Nf4Weight>();
  expect_product<Int8Weight>();
}

TEST(Int8Weight, ErrorIsHalfAStepOfItsRow) {
  const at::Tensor weight = weight_of(20, 64);
  const auto packed = packed_of<Int8Weight>(weight);
  const at::Tensor step = weight.abs().amax(1, true) / 127.0;
  EXPECT_TRUE((packed->whole() - weight).abs().le(step * 0.5001).all().item<bool>());
}

}  // namespace
}  // namespace kamerton::tuning
