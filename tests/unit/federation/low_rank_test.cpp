// SPDX-License-Identifier: Apache-2.0
#include "kamerton/federation/low_rank.h"

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "kamerton/core/random.h"

namespace kamerton::federation {
namespace {

std::vector<float> noise(size_t n, uint64_t lane, double scale) {
  const core::RandomStream random(12, "test.low_rank", lane);
  std::vector<float> values(n);
  for (size_t i = 0; i < n; ++i) {
    values[i] = static_cast<float>(scale * random.normal(i));
  }
  return values;
}

constexpr size_t kRank = 4;
constexpr size_t kIn = 30;
constexpr size_t kOut = 20;

/// Three sites whose A differ by `drift` from a shared one.
struct Adapters {
  FactorPair pair{"m", 0, 0, kRank, kIn, kOut};
  SiteFactors sites;
  std::vector<float> a = std::vector<float>(kRank * kIn);
  std::vector<float> b = std::vector<float>(kOut * kRank);

  explicit Adapters(double drift) {
    const auto shared = noise(kRank * kIn, 99, 1.0);
    for (uint64_t k = 0; k < 3; ++k) {
      sites.a.push_back(noise(kRank * kIn, k, drift));
      for (size_t i = 0; i < shared.size(); ++i) {
        sites.a.back()[i] += shared[i];
      }
      sites.b.push_back(noise(kOut * kRank, 10 + k, 1.0));
    }
    sites.shares = {0.5, 0.3, 0.2};
  }
  static double product(const std::vector<float>& left,
                        const std::vector<float>& right,
                        size_t row,
                        size_t column) {
    double sum = 0;
    for (size_t r = 0; r < kRank; ++r) {
      sum += static_cast<double>(left[row * kRank + r]) * right[r * kIn + column];
    }
    return sum;
  }
  /// Relative distance of b a from the sum of products.
  double error() const {
    double gap = 0;
    double all = 0;
    for (size_t row = 0; row < kOut; ++row) {
      for (size_t column = 0; column < kIn; ++column) {
        double want = 0;
        for (size_t k = 0; k < 3; ++k) {
          want += sites.shares[k] * product(sites.b[k], sites.a[k], row, column);
        }
        gap += std::pow(product(b, a, row, column) - want, 2);
        all += want * want;
      }
    }
    return std::sqrt(gap / all);
  }
};

TEST(LowRank, ASharedAMakesTheSumExact) {
  Adapters adapters(0.0);
  const auto [lost, all] = redistribute(adapters.pair, adapters.sites, adapters.a, adapters.b);
  EXPECT_LT(adapters.error(), 1e-6);
  EXPECT_LT(std::sqrt(std::max(lost, 0.0) / all), 1e-6);
}

TEST(LowRank, TheErrorSaidIsTheErrorMade) {
  Adapters adapters(0.5);
  const auto [lost, all] = redistribute(adapters.pair, adapters.sites, adapters.a, adapters.b);
  const double by_svd = adapters.error();
  EXPECT_NEAR(std::sqrt(lost / all), by_svd, 1e-5);
  const auto [gap, whole] = average_factors(adapters.pair, adapters.sites, adapters.a, adapters.b);
  const double by_average = adapters.error();
  EXPECT_NEAR(std::sqrt(gap / whole), by_average, 1e-5);
  EXPECT_LT(by_svd, by_average) << "the SVD is the best of its rank";
}

TEST(LowRank, FactorsAreFoundByName) {
  const Layout layout({{"x.lora_A.weight", {4, 30}}, {"x.lora_B.weight", {20, 4}}, {"n", {7}}}, 1);
  const auto pairs = factor_pairs(layout);
  ASSERT_EQ(pairs.size(), 1U);
  EXPECT_EQ(pairs[0].module, "x");
  EXPECT_EQ(pairs[0].b, 120);
  EXPECT_THROW(factor_pairs(Layout({{"x.lora_A.weight", {4, 30}}}, 1)), std::exception);
}

}  // namespace
}  // namespace kamerton::federation
