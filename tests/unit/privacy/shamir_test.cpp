// SPDX-License-Identifier: Apache-2.0
#include "kamerton/privacy/shamir.h"

#include <algorithm>
#include <map>
#include <numeric>

#include <gtest/gtest.h>

#include "bytes.h"
#include "support/expect_error.h"

namespace kamerton::privacy {
namespace {

std::vector<uint32_t> first_points(uint32_t n) {
  std::vector<uint32_t> points(n);
  std::iota(points.begin(), points.end(), 1u);
  return points;
}

TEST(Shamir, AnyThresholdSharesGiveTheSecretBack) {
  auto random = test_random();
  const Secret secret = random_scalar(random);
  const auto shares = split(secret, first_points(6), 4, random);

  for (uint32_t chosen = 0; chosen < 64; ++chosen) {  // every subset
    std::vector<Share> some;
    for (uint32_t i = 0; i < 6; ++i) {
      if ((chosen >> i & 1) != 0) {
        some.push_back(shares[i]);
      }
    }
    if (some.size() >= 4) {
      EXPECT_TRUE(combine(some, 4).equals(secret)) << chosen;
    } else {
      test::expect_error(core::ErrorKind::Data, {"too few"}, [&] { combine(some, 4); });
    }
  }
}

TEST(Shamir, FewerSharesFitEverySecret) {
  // With t - 1 shares fixed, the missing one decides the secret: no value of it is ruled out.
  auto random = test_random();
  auto shares = split(random_scalar(random), first_points(3), 3, random);
  std::map<std::string, int> secrets;

  for (int i = 0; i < 20; ++i) {
    shares[2].y = random_scalar(random);
    ++secrets[hex(combine(shares, 3).bytes())];
  }

  EXPECT_EQ(secrets.size(), 20);
}

TEST(Shamir, SharesOfOneSecretDifferEachTime) {
  auto random = test_random();
  const Secret secret = random_scalar(random);
  const auto first = split(secret, first_points(3), 2, random);
  const auto second = split(secret, first_points(3), 2, random);

  EXPECT_FALSE(first[0].y.equals(second[0].y));
  EXPECT_FALSE(first[0].y.equals(secret));
  EXPECT_TRUE(split(secret, first_points(3), 1, random)[2].y.equals(secret));
}

TEST(Shamir, WrongSharesGiveAWrongSecretAndBadOnesAreRefused) {
  auto random = test_random();
  const Secret secret = random_scalar(random);
  const auto shares = split(secret, first_points(4), 3, random);
  auto wrong = shares;
  std::swap(wrong[0].y, wrong[1].y);
  auto twice = shares;
  twice[1] = twice[0];
  auto zero = shares;
  zero[0].x = 0;
  auto large = shares;
  large[0].y = secret_of(std::string(64, 'f'));

  EXPECT_FALSE(combine(wrong, 3).equals(secret));
  test::expect_error(core::ErrorKind::Data, {"distinct"}, [&] { combine(twice, 3); });
  test::expect_error(core::ErrorKind::Data, {"distinct"}, [&] { combine(zero, 3); });
  test::expect_error(core::ErrorKind::Data, {"order"}, [&] { combine(large, 3); });
}

TEST(Shamir, ScalarsAreBelowTheGroupsOrder) {
  // 2^252 + 27742317777372353535851937790883648493, little-endian.
  const Secret order =
      secret_of("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
  const Secret below =
      secret_of("ecd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");

  EXPECT_FALSE(is_scalar(order));
  EXPECT_TRUE(is_scalar(below));
}

}  // namespace
}  // namespace kamerton::privacy
