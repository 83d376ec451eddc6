// SPDX-License-Identifier: Apache-2.0
#include "kamerton/core/random.h"

#include <cmath>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "kamerton/core/error.h"

#include "philox.h"

namespace kamerton::core {
namespace {

// Known-answer vectors published with Random123 (tests/kat_vectors, philox4x32 10).
TEST(Philox, EqualsThePublishedVectors) {
  EXPECT_EQ(philox4x32(PhiloxBlock{0, 0, 0, 0}, PhiloxKey{0, 0}),
            (PhiloxBlock{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32(PhiloxBlock{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
                       PhiloxKey{0xffffffff, 0xffffffff}),
            (PhiloxBlock{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32(PhiloxBlock{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
                       PhiloxKey{0xa4093822, 0x299f31d0}),
            (PhiloxBlock{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(RandomStream, IsAPureFunctionOfKeyAndCounter) {
  const RandomStream one(7, "data", 3, 4);
  const RandomStream same(7, "data", 3, 4);

  EXPECT_EQ(one.bits(10), same.bits(10));
  EXPECT_EQ(one.bits(5), same.bits(5));
}

// A seed must mean the same numbers in every later version: these were written down when the module
// was written.
TEST(RandomStream, NeverChangesWhatASeedMeans) {
  const RandomStream stream(42, "frozen", 1, 2);

  EXPECT_EQ(stream.bits(0), 11508149074131781570u);
  EXPECT_EQ(stream.bits(1), 3807127069304857611u);
  const Permutation permute(10, 42, "frozen", 1);
  std::vector<uint64_t> order;
  for (uint64_t i = 0; i < 10; ++i) {
    order.push_back(permute(i));
  }
  EXPECT_EQ(order, (std::vector<uint64_t>{2, 0, 3, 9, 1, 8, 6, 4, 5, 7}));
}

TEST(RandomStream, DiffersInEveryPartOfTheKey) {
  std::set<uint64_t> firsts;
  for (const RandomStream& stream : {RandomStream(1, "a"),
                                     RandomStream(2, "a"),
                                     RandomStream(1, "b"),
                                     RandomStream(1, "a", 1),
                                     RandomStream(1, "a", 0, 1),
                                     RandomStream(1, "")}) {
    firsts.insert(stream.bits(0));
    firsts.insert(stream.bits(1));
  }

  EXPECT_EQ(firsts.size(), 12);
}

TEST(RandomStream, UniformHasTheMomentsOfTheUniformDistribution) {
  const RandomStream stream(1, "uniform");
  const int n = 200'000;
  double sum = 0, squares = 0;
  for (int i = 0; i < n; ++i) {
    const double x = stream.uniform(i);
    ASSERT_GE(x, 0.0);
    ASSERT_LT(x, 1.0);
    sum += x;
    squares += x * x;
  }

  EXPECT_NEAR(sum / n, 0.5, 4 * std::sqrt(1.0 / 12 / n));
  EXPECT_NEAR(squares / n, 1.0 / 3, 4 * std::sqrt(4.0 / 45 / n));
}

TEST(RandomStream, NormalHasTheMomentsOfTheNormalDistribution) {
  const RandomStream stream(1, "normal");
  const int n = 200'000;
  double sum = 0, squares = 0, fourth = 0;
  for (int i = 0; i < n; ++i) {
    const double x = stream.normal(i);
    sum += x;
    squares += x * x;
    fourth += x * x * x * x;
  }

  EXPECT_NEAR(sum / n, 0.0, 4 / std::sqrt(n));
  EXPECT_NEAR(squares / n, 1.0, 4 * std::sqrt(2.0 / n));
  EXPECT_NEAR(fourth / n, 3.0, 4 * std::sqrt(96.0 / n));
}

TEST(RandomStream, BelowCoversItsRangeEvenly) {
  const RandomStream stream(9, "below");
  std::vector<int> counts(7);
  for (int i = 0; i < 70'000; ++i) {
    const uint64_t value = stream.below(i, 7);
    ASSERT_LT(value, 7);
    ++counts[value];
  }

  for (const int count : counts) {
    EXPECT_NEAR(count, 10'000, 450);  // 4.9 standard deviations
  }
  EXPECT_EQ(stream.below(3, 1), 0);
  EXPECT_THROW(stream.below(0, 0), Error);
}

TEST(Permutation, IsABijectionForEverySmallSize) {
  for (uint64_t size = 1; size <= 70; ++size) {
    const Permutation permute(size, 5, "order", size);
    std::set<uint64_t> seen;
    for (uint64_t i = 0; i < size; ++i) {
      ASSERT_LT(permute(i), size);
      seen.insert(permute(i));
    }
    ASSERT_EQ(seen.size(), size);
  }
}

TEST(Permutation, IsABijectionForALargeOddSize) {
  const uint64_t size = 300'007;
  const Permutation permute(size, 5, "order", 0);
  std::vector<bool> seen(size);
  for (uint64_t i = 0; i < size; ++i) {
    const uint64_t value = permute(i);
    ASSERT_FALSE(seen.at(value));
    seen[value] = true;
  }
}

TEST(Permutation, StaysInsideRangesBeyond32Bits) {
  for (const uint64_t size : {uint64_t{1} << 40, (uint64_t{1} << 63) + 5, ~uint64_t{0}}) {
    const Permutation permute(size, 5, "order", 0);
    std::set<uint64_t> seen;
    for (uint64_t i = 0; i < 1000; ++i) {
      ASSERT_LT(permute(size - 1 - i), size);
      seen.insert(permute(size - 1 - i));
    }
    EXPECT_EQ(seen.size(), 1000);
  }
}

TEST(Permutation, ChangesWithEpochAndSeedAndMovesMostElements) {
  const uint64_t size = 10'000;
  const Permutation first(size, 5, "order", 0), second(size, 5, "order", 1),
      other(size, 6, "order", 0);
  int fixed = 0, agree_epoch = 0, agree_seed = 0;
  for (uint64_t i = 0; i < size; ++i) {
    fixed += first(i) == i;
    agree_epoch += first(i) == second(i);
    agree_seed += first(i) == other(i);
  }

  // Each count is about Poisson(1) for independent random permutations.
  EXPECT_LT(fixed, 10);
  EXPECT_LT(agree_epoch, 10);
  EXPECT_LT(agree_seed, 10);
}

TEST(Permutation, RefusesPositionsOutside) {
  EXPECT_THROW(Permutation(3, 1, "order", 0)(3), Error);
  EXPECT_THROW(Permutation(0, 1, "order", 0)(0), Error);
}

}  // namespace
}  // namespace kamerton::core
