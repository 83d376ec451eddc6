// SPDX-License-Identifier: Apache-2.0
// Secure aggregation with honest parties: the sum is the plain sum to the bit, whoever drops out.
#include <gtest/gtest.h>

#include "secure_world.h"
#include "support/expect_error.h"

namespace kamerton::privacy {
namespace {

constexpr size_t kSize = 3000;

TEST(SecureSum, EqualsThePlainSumToTheBit) {
  for (const uint32_t n : {3u, 4u, 5u, 10u}) {
    EXPECT_EQ(SecureWorld(n).run<uint32_t>(kSize, {}),
              SecureWorld(n).plain_sum<uint32_t>(kSize, {}))
        << n;
    EXPECT_EQ(SecureWorld(n).run<uint64_t>(kSize, {}),
              SecureWorld(n).plain_sum<uint64_t>(kSize, {}))
        << n;
  }
}

TEST(SecureSum, SurvivesOneSiteLostAtAnyStep) {
  for (int stage = 0; stage <= 4; ++stage) {
    for (uint32_t lost = 0; lost < 4; ++lost) {
      SecureWorld world(4);
      const Dropouts drops = {{world.id(lost), stage}};
      EXPECT_EQ(world.run<uint32_t>(kSize, drops), world.plain_sum<uint32_t>(kSize, drops))
          << "site " << lost << ", stage " << stage;
    }
  }
}

TEST(SecureSum, SurvivesSitesLostAtDifferentSteps) {
  for (int first = 0; first <= 4; ++first) {
    for (int second = 0; second <= 4; ++second) {
      SecureWorld world(10);
      const Dropouts drops = {
          {world.id(1), first}, {world.id(8), second}, {world.id(5), (first + second) % 5}};
      EXPECT_EQ(world.run<uint32_t>(100, drops), world.plain_sum<uint32_t>(100, drops))
          << first << ", " << second;
    }
  }
}

TEST(SecureSum, TooManyLostSitesEndTheRoundAndRevealNothing) {
  for (int stage = 0; stage <= 4; ++stage) {
    SecureWorld world(4);
    const Dropouts drops = {{world.id(0), stage}, {world.id(2), stage}};
    test::expect_error(
        core::ErrorKind::NoProgress, {"too few sites"}, [&] { world.run<uint32_t>(10, drops); });
  }
}

TEST(SecureSum, SparseGraphOfNeighborsGivesThePlainSumToo) {
  SecureWorld world(40, 18);
  Dropouts drops;
  for (const uint32_t i : {3u, 17u, 25u, 39u}) {
    drops[world.id(i)] = static_cast<int>(i % 5);
  }

  EXPECT_EQ(world.run<uint32_t>(200, drops), world.plain_sum<uint32_t>(200, drops));
}

TEST(SecureSum, WhatIsUploadedLooksLikeNoise) {
  SecureWorld world(3);
  world.run<uint32_t>(1, {});
  std::vector<uint32_t> zeros(20000);

  world.clients.at(world.id(0)).masks(digest_named("input")).apply(std::span<uint32_t>(zeros), 0);

  std::array<int, 16> counts = {};
  for (const uint32_t word : zeros) {
    ++counts[word >> 28];
  }
  for (const int count : counts) {
    EXPECT_NEAR(count, 1250, 170);  // 5 standard deviations
  }
}

TEST(SecureSum, SiteResumesFromItsStateAtEveryStepWithTheSameMessages) {
  SecureWorld world(4);
  world.run<uint32_t>(10, {{world.id(3), 2}});
  SecureWorld again(4);
  // Every client is put away and taken up again before each step.
  again.make_clients();
  const auto restart = [&](uint32_t site) -> SecureClient& {
    const std::string state = again.clients.at(site).state();
    const uint32_t i = (site - 10) / 3;
    again.clients.at(site) = SecureClient::resume(state, again.identities[i], *again.randoms[i]);
    EXPECT_EQ(again.clients.at(site).state(), state);
    return again.clients.at(site);
  };
  SecureServer server(again.round);
  for (const SecureSite& site : again.round.sites) {
    server.accept(restart(site.id).advertise());
    EXPECT_FALSE(server.accept(restart(site.id).advertise()));  // the same message again
  }
  const KeyBook book = server.close_adverts();
  for (const SecureSite& site : again.round.sites) {
    server.accept(restart(site.id).share(book));
    EXPECT_FALSE(server.accept(restart(site.id).share(book)));
  }
  server.close_shares();
  std::vector<uint32_t> sum(10);
  for (uint32_t i = 0; i < 3; ++i) {
    restart(again.id(i)).receive(server.delivery(again.id(i)));
    auto values = SecureWorld::input_of<uint32_t>(again.id(i), 10);
    restart(again.id(i)).masks(digest_named("input")).apply(std::span<uint32_t>(values), 0);
    ring_add(std::span<uint32_t>(sum), std::span<const uint32_t>(values));
    EXPECT_TRUE(server.uploaded(again.id(i)));
    EXPECT_FALSE(server.uploaded(again.id(i)));
  }
  const SurvivorList survivors = server.close_uploads();
  for (const uint32_t site : survivors.sites) {
    server.accept(restart(site).vote(survivors));
  }
  const VoteBook votes = server.close_votes();
  for (const uint32_t site : survivors.sites) {
    EXPECT_FALSE(server.enough());
    server.accept(restart(site).reveal(votes));
    EXPECT_FALSE(server.accept(restart(site).reveal(votes)));
  }
  server.unmask().apply(std::span<uint32_t>(sum), 0);

  EXPECT_EQ(sum, again.plain_sum<uint32_t>(10, {{again.id(3), 2}}));
}

TEST(SecureRound, RefusesRoundsThatWouldProtectNobody) {
  const auto refused = [](auto&& change, const std::string& why) {
    SecureWorld world(5);
    change(world.round);
    test::expect_error(core::ErrorKind::Config, {why}, [&] { world.round.check(); });
  };
  refused([](SecureRound& r) { r.sites.resize(2); }, "fewer than 3 sites");
  refused([](SecureRound& r) { r.threshold = 2; }, "threshold");
  refused([](SecureRound& r) { r.threshold = 6; }, "threshold");
  refused([](SecureRound& r) { r.quorum = 2; }, "quorum");
  refused([](SecureRound& r) { r.quorum = 6; }, "quorum");
  refused([](SecureRound& r) { r.neighbors = 3; }, "neighbors");
  refused([](SecureRound& r) { r.neighbors = 6; }, "neighbors");
  refused([](SecureRound& r) { std::swap(r.sites[0], r.sites[1]); }, "ascending");
  refused([](SecureRound& r) { r.sites[1].identity = r.sites[0].identity; }, "one key");
}

TEST(SecureRound, DefaultsAreTwoThirdsAndSparseForManySites) {
  SecureWorld few(10);
  few.round.use_defaults();
  SecureWorld many(200);
  many.round.use_defaults();

  EXPECT_EQ(few.round.neighbors, 0);
  EXPECT_EQ(few.round.threshold, 7);
  EXPECT_EQ(few.round.quorum, 7);
  EXPECT_NO_THROW(many.round.check());
  EXPECT_GT(many.round.neighbors, 20);
  EXPECT_LT(many.round.neighbors, 199);
}

TEST(SecureRound, GraphIsRegularSymmetricAndChangesWithTheRound) {
  SecureWorld world(60, 10);
  const auto lists = world.round.neighbor_lists();
  for (uint32_t i = 0; i < 60; ++i) {
    EXPECT_EQ(lists[i].size(), 10);
    EXPECT_EQ(lists[i], world.round.neighbors_of(world.id(i)));
    for (const uint32_t peer : lists[i]) {
      const auto back = world.round.neighbors_of(peer);
      EXPECT_TRUE(std::binary_search(back.begin(), back.end(), world.id(i)));
    }
  }
  world.round.round = 8;
  EXPECT_NE(lists, world.round.neighbor_lists());
}

TEST(NeighborCount, GrowsSlowlyAndFallsBackToTheCompleteGraph) {
  EXPECT_EQ(choose_neighbors(20, 0.05, 0.05, 40), 0);
  const uint32_t thousand = choose_neighbors(1000, 0.05, 0.05, 40);
  const uint32_t ten_thousand = choose_neighbors(10000, 0.05, 0.05, 40);
  EXPECT_GT(thousand, 30);
  EXPECT_LT(thousand, 150);
  EXPECT_GE(ten_thousand, thousand);
  EXPECT_LT(ten_thousand, thousand + 40);
  test::expect_error(
      core::ErrorKind::Config, {"third"}, [] { choose_neighbors(100, 0.2, 0.2, 40); });
}

}  // namespace
}  // namespace kamerton::privacy
