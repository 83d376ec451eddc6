// SPDX-License-Identifier: Apache-2.0
// Noise of whole sites through the codec, the sum and the accountant.
#include "kamerton/federation/site_noise.h"

#include <cmath>
#include <cstring>

#include <gtest/gtest.h>

#include "kamerton/core/random.h"
#include "kamerton/federation/codec.h"
#include "kamerton/federation/combine.h"
#include "kamerton/federation/vector_file.h"
#include "kamerton/storage/digest.h"

#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace kamerton::federation {
namespace {

constexpr int64_t kSize = 20000;
constexpr int64_t kSites = 5;

FederationConfig noisy_config() {
  FederationConfig config;
  config.weights = "uniform";
  config.eval_every = 0;
  config.update.encoding = "ring32";
  config.cohort.size = kSites;
  config.cohort.min_sites = 3;
  config.privacy.site_clip = 0.5;
  config.privacy.site_noise = 0.8;
  config.privacy.site_epsilon = 50;
  return config;
}

/// Of this 2-norm, with a few large elements where `spiky`.
std::vector<float> update_of(uint64_t site, double norm, bool spiky = false) {
  const core::RandomStream random(17, "test.site_noise", site);
  std::vector<double> values(kSize);
  double squares = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = random.normal(i) * (spiky && i % 4000 == 0 ? 1000 : 1);
    squares += values[i] * values[i];
  }
  std::vector<float> scaled(kSize);
  for (size_t i = 0; i < scaled.size(); ++i) {
    scaled[i] = static_cast<float>(values[i] * norm / std::sqrt(squares));
  }
  return scaled;
}

double norm_of(const std::vector<float>& values) {
  double squares = 0;
  for (const float value : values) {
    squares += static_cast<double>(value) * value;
  }
  return std::sqrt(squares);
}

std::vector<float> clipped(std::vector<float> values, double clip) {
  const auto factor = static_cast<float>(site_clip_factor(norm_of(values), clip));
  for (float& value : values) {
    value *= factor;
  }
  return values;
}

privacy::Secret key_of(uint64_t number) {
  const storage::Digest digest = storage::digest_of("test " + std::to_string(number));
  return privacy::Secret(std::span<const uint8_t, 32>(digest));
}

std::vector<std::byte> encoded(const FederationConfig& config,
                               const std::vector<float>& values,
                               const privacy::Secret* key) {
  const auto codec = make_codec(config, kSize, 1);
  const auto plan = site_noise_plan(config, kSize);
  std::vector<std::byte> bytes(static_cast<size_t>(encoded_size(*codec, kSize)));
  for (int64_t at = 0; at < kSize; at += kBlock) {
    const int64_t count = std::min(kBlock, kSize - at);
    const auto words =
        std::span(bytes).subspan(static_cast<size_t>(encoded_offset(*codec, at / kBlock)),
                                 static_cast<size_t>(codec->block_bytes(count)));
    codec->encode(std::span(values).subspan(static_cast<size_t>(at), static_cast<size_t>(count)),
                  at / kBlock,
                  words);
    if (key != nullptr) {
      hide_block(plan, *key, at / kBlock, words);
    }
  }
  return bytes;
}

TEST(SiteNoise, NoUpdateIsLongerThanTheSensitivity) {
  const FederationConfig config = noisy_config();
  const auto plan = site_noise_plan(config, kSize);
  for (const double norm : {0.1, 0.5, 0.50001, 3.0, 1e4}) {
    for (const bool spiky : {false, true}) {
      const std::vector<float> update = clipped(update_of(7, norm, spiky), 0.5);
      EXPECT_LE(norm_of(update), 0.5);
      EXPECT_GT(norm_of(update), std::min(norm, 0.5) * (1 - 1e-5)) << "no more than needed";
      const std::vector<std::byte> bytes = encoded(config, update, nullptr);
      double squares = 0;
      for (size_t i = 0; i < static_cast<size_t>(kSize); ++i) {
        int32_t step = 0;
        std::memcpy(&step, bytes.data() + 4 * i, 4);
        squares += static_cast<double>(step) * step;
      }
      EXPECT_LE(std::sqrt(squares), plan.sensitivity) << norm;
    }
  }
  EXPECT_EQ(site_clip_factor(std::nan(""), 0.5), 0);
}

TEST(SiteNoise, TheMeanOfARoundCarriesTheNoiseOfItsSites) {
  const FederationConfig config = noisy_config();
  const auto plan = site_noise_plan(config, kSize);
  for (const int64_t present : {int64_t{3}, kSites}) {
    const test::TemporaryFolder folder;
    std::vector<Contribution> list;
    std::vector<double> exact(kSize, 0.0);
    for (int64_t k = 0; k < present; ++k) {
      const auto update = clipped(update_of(static_cast<uint64_t>(k), 2), 0.5);
      for (size_t i = 0; i < exact.size(); ++i) {
        exact[i] += update[i] / static_cast<double>(present);
      }
      const privacy::Secret key = key_of(static_cast<uint64_t>(k));
      const std::string name = "s" + std::to_string(k);
      const auto bytes = encoded(config, update, &key);
      RangeFile file = RangeFile::open_or_create(folder / name, static_cast<int64_t>(bytes.size()));
      file.write(0, std::span<const std::byte>(bytes));
      list.push_back({name, 1, 0, folder / name});
    }
    Combiner combiner(config, list, kSize);
    double squares = 0;
    double sum = 0;
    combiner.run([&](int64_t begin, std::span<const double> mean) {
      for (size_t i = 0; i < mean.size(); ++i) {
        const double noise = mean[i] - exact[static_cast<size_t>(begin) + i];
        squares += noise * noise;
        sum += noise;
      }
    });
    const auto n = static_cast<double>(present);
    const double want = plan.sigma * plan.codec.step() * std::sqrt(n / 3) / n;
    EXPECT_NEAR(std::sqrt(squares / kSize), want, 0.02 * want) << present;
    EXPECT_LT(std::fabs(sum / kSize), 5 * want / std::sqrt(static_cast<double>(kSize)));
    EXPECT_GE(plan.sigma * plan.codec.step(), 0.8 * 0.5) << "never below noise times clip";
  }
}

TEST(SiteNoise, IsAFunctionOfItsKeyAndBlock) {
  const FederationConfig config = noisy_config();
  const std::vector<float> update(kSize, 0.0F);
  const privacy::Secret one = key_of(1);
  const privacy::Secret two = key_of(2);
  const auto first = encoded(config, update, &one);
  EXPECT_EQ(first, encoded(config, update, &one));
  const auto other = encoded(config, update, &two);
  size_t same = 0;
  size_t repeated = 0;
  for (size_t i = 0; i < static_cast<size_t>(kSize); ++i) {
    same += std::memcmp(first.data() + 4 * i, other.data() + 4 * i, 4) == 0 ? 1 : 0;
  }
  for (size_t i = 0; i < static_cast<size_t>(kBlock); ++i) {
    repeated += std::memcmp(first.data() + 4 * i, first.data() + 4 * (i + kBlock), 4) == 0 ? 1 : 0;
  }
  EXPECT_LT(same, 5U);
  EXPECT_LT(repeated, 5U) << "blocks have noise of their own";
}

/// delta of a Gaussian release at epsilon (arXiv 1805.06530), by erfc alone.
double gaussian_delta(double sigma, double epsilon) {
  const auto tail = [](double x) { return 0.5 * std::erfc(x / std::sqrt(2.0)); };
  return tail(epsilon * sigma - 0.5 / sigma) -
         std::exp(epsilon) * tail(epsilon * sigma + 0.5 / sigma);
}

TEST(SiteNoise, EpsilonIsTheAccountants) {
  FederationConfig config = noisy_config();
  config.privacy.site_delta = 1e-5;
  config.privacy.site_noise = 10;
  EXPECT_NEAR(site_epsilon(config, 50).models, 2.943225, 1e-3);  // dp_accounting's PLD
  config.privacy.site_noise = 4.2443;
  EXPECT_NEAR(site_epsilon(config, 50).models, 8, 3e-3);
  for (const int64_t rounds : {1, 7, 100}) {
    const SiteEpsilon epsilon = site_epsilon(config, rounds);
    const double composed = 4.2443 / std::sqrt(static_cast<double>(rounds));
    EXPECT_NEAR(gaussian_delta(composed, epsilon.models), 1e-5, 1e-9);
    EXPECT_NEAR(gaussian_delta(composed / std::sqrt(3.0), epsilon.updates), 1e-5, 1e-9);
    EXPECT_GT(epsilon.updates, epsilon.models);
  }
  EXPECT_EQ(site_epsilon(config, 0).models, 0);
}

TEST(SiteNoise, SettingsThatHideNothingAreRefused) {
  const auto refused = [](const char* word, const auto& change) {
    FederationConfig config = noisy_config();
    change(config);
    test::expect_error(core::ErrorKind::Config, {word}, [&] { validate(config, {}); });
  };
  EXPECT_NO_THROW(validate(noisy_config(), {}));
  refused("site_clip", [](auto& c) { c.privacy.site_clip = 0; });
  refused("budget", [](auto& c) { c.privacy.site_epsilon = 0; });
  refused("ring32", [](auto& c) { c.update.encoding = "f32"; });
  refused("cohort.size", [](auto& c) { c.cohort.size = 0; });
  refused("eval_every", [](auto& c) { c.eval_every = 1; });
  FederationConfig many = noisy_config();
  many.cohort.size = 4000;
  many.privacy.site_noise = 1e6;
  test::expect_error(
      core::ErrorKind::Config, {"do not fit"}, [&] { site_noise_plan(many, int64_t{1} << 30); });
}

TEST(SiteNoise, ADecoderRefusesWhatNoSiteSends) {
  const FederationConfig config = noisy_config();
  const auto codec = make_codec(config, kSize, 1);
  std::vector<float> out(1);
  const int32_t huge = INT32_MIN;
  std::vector<std::byte> bytes(4);
  std::memcpy(bytes.data(), &huge, 4);
  test::expect_error(core::ErrorKind::Data, {"out of range"}, [&] { codec->decode(bytes, out); });
}

}  // namespace
}  // namespace kamerton::federation
