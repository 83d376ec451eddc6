// SPDX-License-Identifier: Apache-2.0
#include "reduce.h"

#include <cmath>
#include <limits>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace kamerton::comm {
namespace {

TEST(Reduce, TakesTheSumInTheOrderOfTheInputs) {
  // (1e8 + 1) - 1e8 = 0 in fp32, 1e8 - 1e8 + 1 = 1: order shows.
  const std::vector<float> a = {1e8f, 1e8f}, b = {1.0f, -1e8f}, c = {-1e8f, 1.0f};
  std::vector<float> out(2);
  const std::vector<const void*> inputs = {a.data(), b.data(), c.data()};
  reduce_ranks(inputs, at::kFloat, out.data(), at::kFloat, 2, Reduce::Sum);
  EXPECT_EQ(out[0], 0.0f);
  EXPECT_EQ(out[1], 1.0f);
}

TEST(Reduce, RoundsBfloat16Once) {
  const c10::BFloat16 big(256.0f), one(1.0f);
  c10::BFloat16 out;
  const std::vector<const void*> inputs = {&big, &one, &one, &one};
  reduce_ranks(inputs, at::kBFloat16, &out, at::kBFloat16, 1, Reduce::Sum);
  EXPECT_EQ(static_cast<float>(out),
            260.0f);  // 259 rounds to even; one by one it would have stayed 256
}

TEST(Reduce, MaxAndMinKeepNotANumber) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> a = {nan, 1.0f, 2.0f}, b = {1.0f, nan, 3.0f};
  std::vector<float> out(3);
  const std::vector<const void*> inputs = {a.data(), b.data()};
  for (const Reduce op : {Reduce::Max, Reduce::Min}) {
    reduce_ranks(inputs, at::kFloat, out.data(), at::kFloat, 3, op);
    EXPECT_TRUE(std::isnan(out[0]));
    EXPECT_TRUE(std::isnan(out[1]));
    EXPECT_EQ(out[2], op == Reduce::Max ? 3.0f : 2.0f);
  }
}

TEST(Reduce, MayWriteOverAnyOfItsInputs) {
  for (size_t target = 0; target < 3; ++target) {
    std::vector<std::vector<float>> data(3, std::vector<float>(10007));
    for (size_t r = 0; r < 3; ++r) {
      for (size_t i = 0; i < data[r].size(); ++i) {
        data[r][i] = static_cast<float>(i * (r + 1));
      }
    }
    const std::vector<const void*> inputs = {data[0].data(), data[1].data(), data[2].data()};
    reduce_ranks(inputs, at::kFloat, data[target].data(), at::kFloat, 10007, Reduce::Sum);
    for (size_t i = 0; i < 10007; ++i) {
      ASSERT_EQ(data[target][i], static_cast<float>(i * 6));
    }
  }
}

TEST(Reduce, WrapsIntegersInsteadOfOverflowing) {
  const int64_t top = std::numeric_limits<int64_t>::max(), one = 1;
  int64_t out = 0;
  const std::vector<const void*> inputs = {&top, &one};
  reduce_ranks(inputs, at::kLong, &out, at::kLong, 1, Reduce::Sum);
  EXPECT_EQ(out, std::numeric_limits<int64_t>::min());
}

TEST(Reduce, TakesOnlyTypesItKnows) {
  EXPECT_TRUE(can_reduce(at::kBFloat16, at::kFloat));
  EXPECT_TRUE(can_reduce(at::kByte, at::kByte));
  EXPECT_FALSE(can_reduce(at::kFloat, at::kDouble));
  EXPECT_FALSE(can_reduce(at::kFloat, at::kBFloat16));
  EXPECT_FALSE(can_reduce(at::kBool, at::kBool));
}

}  // namespace
}  // namespace kamerton::comm
