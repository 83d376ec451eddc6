// SPDX-License-Identifier: Apache-2.0
#include "kamerton/privacy/normal_stream.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "bytes.h"

namespace kamerton::privacy {
namespace {

std::vector<float> noise(uint64_t step, const std::string& name, uint64_t first, size_t size) {
  std::vector<float> values(size);
  auto random = test_random();
  NormalStream(random.secret(), "test", step, name).add(first, 1.0, values);
  return values;
}

TEST(NormalStream, IsStandardNormal) {
  auto values = noise(1, "a", 0, 200000);
  double sum = 0;
  double squares = 0;
  for (const float value : values) {
    sum += value;
    squares += static_cast<double>(value) * value;
  }
  std::sort(values.begin(), values.end());
  double distance = 0;  // Kolmogorov and Smirnov
  for (size_t i = 0; i < values.size(); ++i) {
    const double exact = 0.5 * std::erfc(-values[i] / std::sqrt(2.0));
    distance = std::max(distance, std::abs(exact - (i + 0.5) / values.size()));
  }

  EXPECT_NEAR(sum / 200000, 0, 5 / std::sqrt(200000));
  EXPECT_NEAR(squares / 200000, 1, 5 * std::sqrt(2.0 / 200000));
  EXPECT_LT(distance, 1.95 / std::sqrt(200000));  // p = 0.001
}

TEST(NormalStream, AnyCutGivesTheSameElements) {
  const auto whole = noise(1, "a", 0, 3000);
  for (const size_t first : {1, 7, 511, 512, 513, 1000}) {
    const auto part = noise(1, "a", first, 1500);
    EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + first)) << first;
  }
}

TEST(NormalStream, StepsAndNamesAreIndependent) {
  const auto first = noise(1, "a", 0, 10000);
  for (const auto& other : {noise(2, "a", 0, 10000), noise(1, "b", 0, 10000)}) {
    double product = 0;
    for (size_t i = 0; i < first.size(); ++i) {
      product += static_cast<double>(first[i]) * other[i];
    }
    EXPECT_NEAR(product / 10000, 0, 0.05);
  }
}

TEST(NormalStream, AddsWithItsScale) {
  std::vector<float> values(100, 5.0f);
  auto random = test_random();
  NormalStream(random.secret(), "test", 1, "a").add(0, 0.25, values);
  const auto unit = noise(1, "a", 0, 100);
  for (size_t i = 0; i < values.size(); ++i) {
    EXPECT_FLOAT_EQ(values[i], 5.0f + 0.25f * unit[i]);
  }
}

}  // namespace
}  // namespace kamerton::privacy
