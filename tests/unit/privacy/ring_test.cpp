// SPDX-License-Identifier: Apache-2.0
#include "kamerton/privacy/ring.h"

#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "bytes.h"
#include "support/expect_error.h"

namespace kamerton::privacy {
namespace {

using Floats = std::vector<float>;

template <class Word>
std::vector<Word> encoded(const RingCodec& codec, const Floats& values) {
  std::vector<Word> words(values.size());
  codec.encode(std::span<const float>(values), std::span<Word>(words));
  return words;
}

template <class Word>
void expect_sums_wrap_nowhere(int bits, uint64_t levels, uint64_t terms) {
  const RingCodec codec({.bits = bits, .clip = 8, .levels = levels, .terms = terms});
  const Floats ends = {8.0f, -8.0f, 0.0f, 1e30f, -1e30f};
  std::vector<Word> sum(ends.size());
  std::vector<double> back(ends.size());

  for (uint64_t i = 0; i < terms; ++i) {
    ring_add(std::span<Word>(sum), std::span<const Word>(encoded<Word>(codec, ends)));
  }
  codec.decode(std::span<const Word>(sum), std::span<double>(back));

  const auto n = static_cast<double>(terms);
  EXPECT_EQ(back, (std::vector<double>{8 * n, -8 * n, 0, 8 * n, -8 * n}));
}

TEST(Ring, SumsOfTheLargestTermsAreExact) {
  expect_sums_wrap_nowhere<uint32_t>(32, uint64_t{1} << 22, 1023);
  expect_sums_wrap_nowhere<uint32_t>(32, 1431655764, 3);
  expect_sums_wrap_nowhere<uint64_t>(64, uint64_t{1} << 50, 1000);
}

TEST(Ring, RefusesASumThatCouldWrapAndSaysWhatFits) {
  test::expect_error(core::ErrorKind::Config, {"1024 terms", "4194302"}, [] {
    RingCodec({.bits = 32, .levels = uint64_t{1} << 22, .terms = 1024});
  });
  EXPECT_NO_THROW(RingCodec({.bits = 32, .levels = 4194302, .terms = 1024}));
  test::expect_error(core::ErrorKind::Config, {"levels"}, [] { RingCodec({.levels = 3}); });
  test::expect_error(core::ErrorKind::Config, {"levels"}, [] { RingCodec({.levels = 0}); });
  test::expect_error(core::ErrorKind::Config, {"2^32 or 2^64"}, [] { RingCodec({.bits = 16}); });
  test::expect_error(core::ErrorKind::Config, {"clipping"}, [] { RingCodec({.clip = 0}); });
  test::expect_error(core::ErrorKind::Config, {"none"}, [] {
    RingCodec({.levels = 2, .terms = 3, .noise_bound = 3e9});
  });
}

TEST(Ring, EncodingIsWithinHalfAStepAndCountsWhatItCuts) {
  const RingCodec codec({.bits = 32, .clip = 1, .levels = 1000, .terms = 10});
  auto random = test_random();
  Floats values(1000);
  for (float& value : values) {
    value = static_cast<float>(random.bits64() >> 40) * 0x1p-23f - 1.0f;
  }
  values.push_back(1.5f);
  std::vector<uint32_t> words(values.size());
  std::vector<float> back(values.size());

  const auto report = codec.encode(std::span<const float>(values), std::span<uint32_t>(words));
  codec.decode(std::span<const uint32_t>(words), std::span<float>(back));

  EXPECT_EQ(report.clipped, 1);
  EXPECT_FLOAT_EQ(back.back(), 1.0f);
  for (size_t i = 0; i + 1 < values.size(); ++i) {
    EXPECT_NEAR(back[i], values[i], codec.step() / 2 * 1.001);
  }
}

TEST(Ring, RandomRoundingHasNoBiasAndStaysInRange) {
  const RingCodec codec({.bits = 64, .clip = 1, .levels = 4, .terms = 10});
  const Floats values(40000, 0.1f);  // 0.2 steps
  auto random = test_random();
  std::vector<uint64_t> words(values.size());
  std::vector<double> back(values.size());

  codec.encode(std::span<const float>(values), std::span<uint64_t>(words), random);
  codec.decode(std::span<const uint64_t>(words), std::span<double>(back));

  double mean = 0;
  for (const double value : back) {
    EXPECT_TRUE(value == 0.0 || value == 0.5) << value;
    mean += value / static_cast<double>(back.size());
  }
  EXPECT_NEAR(mean, 0.1, 0.005);  // 5 standard deviations
}

TEST(Ring, RefusesWhatIsNotANumber) {
  const RingCodec codec({.bits = 32});
  std::vector<uint32_t> words(2);
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    const Floats values = {1.0f, bad};
    test::expect_error(core::ErrorKind::Numeric, {"element 1"}, [&] {
      codec.encode(std::span<const float>(values), std::span<uint32_t>(words));
    });
  }
}

TEST(Ring, SensitivityBoundsEveryEncoding) {
  const RingCodec codec({.bits = 32, .clip = 4, .levels = 1 << 12, .terms = 10});
  auto random = test_random();
  for (int trial = 0; trial < 50; ++trial) {
    Floats values(500);
    double norm = 0;
    for (float& value : values) {
      value = static_cast<float>(random.bits64() >> 40) * 0x1p-26f - 0.125f;
      norm += static_cast<double>(value) * value;
    }
    std::vector<uint32_t> words(values.size());
    codec.encode(std::span<const float>(values), std::span<uint32_t>(words), random);
    double found = 0;
    for (const uint32_t word : words) {
      found += std::pow(static_cast<double>(static_cast<int32_t>(word)), 2);
    }
    EXPECT_LE(std::sqrt(found), codec.sensitivity(std::sqrt(norm), values.size(), true));
  }
}

}  // namespace
}  // namespace kamerton::privacy
