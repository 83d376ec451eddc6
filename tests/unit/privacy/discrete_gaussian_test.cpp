// SPDX-License-Identifier: Apache-2.0
#include "kamerton/privacy/discrete_gaussian.h"

#include <cmath>
#include <map>
#include <vector>

#include <gtest/gtest.h>

#include "bytes.h"
#include "support/expect_error.h"

namespace kamerton::privacy {
namespace {

/// Pearson's statistic of the draws against the exact probabilities, cells with 20 or more
/// expected.
void expect_distribution(const DiscreteGaussian& noise, double variance) {
  auto random = test_random();
  constexpr int kDraws = 60000;
  std::map<int64_t, int> counts;
  for (int i = 0; i < kDraws; ++i) {
    ++counts[noise(random)];
  }
  double all = 0;
  for (int k = -200; k <= 200; ++k) {
    all += std::exp(-k * k / (2 * variance));
  }
  double statistic = 0;
  int cells = 0;
  for (int k = -200; k <= 200; ++k) {
    const double expected = kDraws * std::exp(-k * k / (2 * variance)) / all;
    if (expected >= 20) {
      statistic += std::pow(counts[k] - expected, 2) / expected;
      ++cells;
    }
  }
  // Mean cells - 1, standard deviation sqrt(2 (cells - 1)).
  EXPECT_LT(statistic, cells - 1 + 4.5 * std::sqrt(2.0 * (cells - 1)));
  EXPECT_GT(statistic, 0);
}

TEST(DiscreteGaussian, DrawsFollowTheExactProbabilities) {
  expect_distribution(DiscreteGaussian(1, 1), 1);
  expect_distribution(DiscreteGaussian(1, 4), 0.25);
  expect_distribution(DiscreteGaussian(100, 7), 100.0 / 7);
  expect_distribution(DiscreteGaussian(400, 1), 400);
}

TEST(DiscreteGaussian, LargeNoiseHasItsVarianceAndNoMean) {
  const auto noise = DiscreteGaussian::at_least(1e5);
  auto random = test_random();
  constexpr int kDraws = 20000;
  double sum = 0;
  double squares = 0;
  for (int i = 0; i < kDraws; ++i) {
    const auto value = static_cast<double>(noise(random));
    sum += value;
    squares += value * value;
  }

  EXPECT_NEAR(sum / kDraws, 0, 5 * 1e5 / std::sqrt(kDraws));
  EXPECT_NEAR(squares / kDraws / 1e10, 1, 5 * std::sqrt(2.0 / kDraws));
}

TEST(DiscreteGaussian, IsAFunctionOfItsRandomness) {
  const auto noise = DiscreteGaussian::at_least(12.5);
  auto first = test_random(4);
  auto second = test_random(4);

  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(noise(first), noise(second));
  }
  EXPECT_GE(noise.sigma(), 12.5);
  EXPECT_NEAR(noise.sigma(), 12.5, 1e-3);
}

TEST(DiscreteGaussian, RefusesNoiseOutOfRange) {
  test::expect_error(core::ErrorKind::Config, {"range"}, [] { DiscreteGaussian(0, 1); });
  test::expect_error(core::ErrorKind::Config, {"range"}, [] { DiscreteGaussian(1, 2000); });
  test::expect_error(core::ErrorKind::Config, {"2^20"}, [] { DiscreteGaussian::at_least(2e6); });
  test::expect_error(core::ErrorKind::Config, {"8 steps"}, [] { noise_of_a_site(10, 4); });
}

TEST(DiscreteGaussian, SharesOfTheNoiseAddUpToAtLeastTheWhole) {
  for (const uint64_t sites : {3, 10, 17}) {
    const auto share = noise_of_a_site(500, sites);
    EXPECT_GE(share.sigma() * share.sigma() * static_cast<double>(sites), 500.0 * 500.0);
    EXPECT_NEAR(share.sigma() * std::sqrt(static_cast<double>(sites)), 500, 0.1);
  }
}

TEST(DiscreteGaussian, NoiseIsAddedInTheRing) {
  std::vector<uint32_t> words(5000, 3);
  auto random = test_random();

  add_noise(std::span<uint32_t>(words), DiscreteGaussian::at_least(100), random);

  double squares = 0;
  for (const uint32_t word : words) {
    squares += std::pow(static_cast<double>(static_cast<int32_t>(word - 3)), 2);
  }
  EXPECT_NEAR(std::sqrt(squares / 5000), 100, 5);
}

}  // namespace
}  // namespace kamerton::privacy
