// SPDX-License-Identifier: Apache-2.0
#include "kamerton/storage/dtype.h"

#include <vector>

#include <gtest/gtest.h>

namespace kamerton::storage {
namespace {

TEST(DType, NamesGoThereAndBack) {
  for (int i = 0; i <= static_cast<int>(DType::Bool); ++i) {
    const auto dtype = static_cast<DType>(i);
    EXPECT_EQ(dtype_from_name(name_of(dtype)), dtype);
    EXPECT_GE(size_of(dtype), 1U);
  }
  EXPECT_EQ(dtype_from_name("F8_E4M3"), std::nullopt);
  EXPECT_EQ(size_of(DType::BF16), 2U);
  EXPECT_EQ(name_of(DType::Bool), "BOOL");
}

TEST(DType, CountsElementsWithoutOverflow) {
  const auto count = [](std::vector<int64_t> shape) { return checked_num_elements(shape); };

  EXPECT_EQ(count({}), 1);
  EXPECT_EQ(count({2, 3, 4}), 24);
  EXPECT_EQ(count({0, 5}), 0);
  EXPECT_EQ(count({-1}), std::nullopt);
  EXPECT_EQ(count({int64_t{1} << 32, int64_t{1} << 31}), std::nullopt);
}

}  // namespace
}  // namespace kamerton::storage
