// SPDX-License-Identifier: Apache-2.0
#include "kamerton/tensor/convert.h"

#include <limits>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace kamerton::tensor {
namespace {

TEST(ConvertFinite, GivesWhatCopyGivesAtEveryLengthAndPlace) {
  const at::Tensor source = at::randn({200}).to(at::kBFloat16);
  for (int64_t length = 0; length < 70; ++length) {
    for (int64_t place = 0; place < 5; ++place) {
      const at::Tensor stored = source.narrow(0, place, length);
      at::Tensor memory = at::full({100}, 7.0F);
      at::Tensor out = memory.narrow(0, 3 + place, length);

      EXPECT_TRUE(convert_finite(stored, out));

      EXPECT_TRUE(at::equal(out, stored.to(at::kFloat))) << length << " from " << place;
      EXPECT_EQ(memory.narrow(0, 0, 3 + place).ne(7).sum().item<int64_t>(), 0);
      const int64_t end = 3 + place + length;
      EXPECT_EQ(memory.narrow(0, end, 100 - end).ne(7).sum().item<int64_t>(), 0);
    }
  }
}

TEST(ConvertFinite, NoticesOneValueThatIsNotFinite) {
  for (const double bad : {std::numeric_limits<double>::quiet_NaN(),
                           std::numeric_limits<double>::infinity(),
                           -std::numeric_limits<double>::infinity()}) {
    for (const at::ScalarType type : {at::kBFloat16, at::kHalf, at::kFloat}) {
      for (int64_t at = 0; at < 50; ++at) {
        at::Tensor stored = at::full({50}, 3e4, type);
        at::Tensor out = at::empty({51}).narrow(0, 1, 50);
        EXPECT_TRUE(convert_finite(stored, out));
        stored[at] = bad;
        EXPECT_FALSE(convert_finite(stored, out)) << at;
      }
    }
  }
}

}  // namespace
}  // namespace kamerton::tensor
