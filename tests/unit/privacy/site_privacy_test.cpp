// SPDX-License-Identifier: Apache-2.0
// Site-level privacy together with secure sums: the noise is in the sum, in full, with any
// survivors.
#include "kamerton/privacy/site_privacy.h"

#include <cmath>

#include <gtest/gtest.h>

#include "secure_world.h"
#include "support/expect_error.h"

namespace kamerton::privacy {
namespace {

constexpr size_t kElements = 20000;

std::vector<float> update_of(uint32_t site, double clip) {
  std::vector<float> values(kElements);
  KeyedRandom random(Secret(), 5000 + site);
  double norm = 0;
  for (float& value : values) {
    value = static_cast<float>(random.bits64() >> 40) * 0x1p-24f - 0.5f;
    norm += static_cast<double>(value) * value;
  }
  const double factor = clip_factor(std::sqrt(norm), clip);
  for (float& value : values) {
    value = static_cast<float>(value * factor);
  }
  return values;
}

TEST(SitePrivacy, TheSumCarriesTheNoiseAndTheUpdates) {
  for (const uint64_t present : {4, 6}) {
    const SitePrivacyConfig config{
        .clip = 2.0, .noise = 0.5, .sites = 6, .min_survivors = 4, .elements = kElements};
    const SitePrivacyPlan plan = plan_site_privacy(config);
    std::vector<uint32_t> sum(kElements);
    std::vector<double> exact(kElements);
    for (uint32_t site = 0; site < present; ++site) {
      const auto update = update_of(site, config.clip);
      std::vector<uint32_t> words(kElements);
      KeyedRandom random(Secret(), 9000 + site);
      plan.codec.encode(std::span<const float>(update), std::span<uint32_t>(words));
      add_noise(std::span<uint32_t>(words), plan.share, random);
      ring_add(std::span<uint32_t>(sum), std::span<const uint32_t>(words));
      for (size_t i = 0; i < kElements; ++i) {
        exact[i] += update[i];
      }
    }
    std::vector<double> found(kElements);
    plan.codec.decode(std::span<const uint32_t>(sum), std::span<double>(found));
    double squares = 0;
    for (size_t i = 0; i < kElements; ++i) {
      squares += std::pow((found[i] - exact[i]) / plan.codec.step(), 2);
    }

    const double expected = plan.sigma * std::sqrt(static_cast<double>(present) / 4);
    EXPECT_NEAR(std::sqrt(squares / kElements), expected, 0.03 * expected) << present;
    EXPECT_GE(plan.sigma, config.noise * plan.sensitivity * (1 - 1e-12));
  }
}

TEST(SitePrivacy, NoEncodingIsLongerThanTheSensitivity) {
  const SitePrivacyPlan plan = plan_site_privacy(
      {.clip = 0.3, .noise = 2, .sites = 5, .min_survivors = 3, .elements = kElements, .bits = 64});
  for (uint32_t site = 0; site < 5; ++site) {
    const auto update = update_of(site, 0.3);
    std::vector<uint64_t> words(kElements);
    const auto report =
        plan.codec.encode(std::span<const float>(update), std::span<uint64_t>(words));
    double squares = 0;
    for (const uint64_t word : words) {
      squares += std::pow(static_cast<double>(static_cast<int64_t>(word)), 2);
    }
    EXPECT_LE(std::sqrt(squares), plan.sensitivity);
    EXPECT_EQ(report.clipped, 0);
  }
}

TEST(SitePrivacy, LargeCohortsAndNoiseStillFitOrAreRefused) {
  EXPECT_NO_THROW(plan_site_privacy(
      {.clip = 1, .noise = 4.24, .sites = 1000, .min_survivors = 667, .elements = 8'400'000}));
  test::expect_error(core::ErrorKind::Config, {"do not fit"}, [] {
    plan_site_privacy(
        {.clip = 1, .noise = 1e7, .sites = 10, .min_survivors = 3, .elements = 8'400'000});
  });
  test::expect_error(core::ErrorKind::Config, {"survivors"}, [] {
    plan_site_privacy({.sites = 3, .min_survivors = 4, .elements = 1});
  });
  EXPECT_EQ(clip_factor(std::nan(""), 1), 0);
  EXPECT_EQ(clip_factor(0.5, 1), 1);
  EXPECT_EQ(clip_factor(4, 1), 0.25);
}

}  // namespace
}  // namespace kamerton::privacy
