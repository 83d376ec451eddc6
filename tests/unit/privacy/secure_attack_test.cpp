// SPDX-License-Identifier: Apache-2.0
// A coordinator (or a site) that lies: every attack of the threat model is refused where it would
// do harm, and the refusal harms nobody.
#include <gtest/gtest.h>

#include "secure_world.h"
#include "support/expect_error.h"

namespace kamerton::privacy {
namespace {

using core::ErrorKind;

/// Four sites led up to a stage by an honest coordinator.
struct Stage : SecureWorld {
  explicit Stage(int stage, uint64_t seed = 1) : SecureWorld(4, 0, seed), server(round) {
    make_clients();
    for (auto& [site, client] : clients) {
      server.accept(client.advertise());
    }
    if (stage >= 1) {
      book = server.close_adverts();
    }
    if (stage >= 2) {
      for (auto& [site, client] : clients) {
        server.accept(client.share(book));
      }
      server.close_shares();
    }
    if (stage >= 3) {
      for (auto& [site, client] : clients) {
        client.receive(server.delivery(site));
        client.masks(digest_named("input"));
      }
    }
  }

  SecureClient& site(uint32_t i) { return clients.at(id(i)); }

  /// An honest list with everybody, signed by everybody.
  VoteBook vote_all(const std::vector<uint32_t>& who) {
    for (auto& [site_id, client] : clients) {
      server.uploaded(site_id);
    }
    const SurvivorList survivors = server.close_uploads();
    for (const uint32_t i : who) {
      server.accept(site(i).vote(survivors));
    }
    return server.close_votes();
  }

  SecureServer server;
  KeyBook book;
};

template <class Body>
void refused(const std::string& why, Body&& body) {
  test::expect_error(ErrorKind::Permission, {why}, body);
}

TEST(MaliciousCoordinator, DifferentModelsForDifferentSitesAreNoticedBeforeAnyKeyIsMade) {
  SecureWorld world(3);
  refused("model", [&] {
    SecureClient(world.round,
                 world.id(0),
                 world.identities[0],
                 digest_named("a poisoned model"),
                 *world.randoms[0]);
  });
}

TEST(MaliciousCoordinator, ASiteToldOfAnotherModelCannotJoinTheOthersRound) {
  // The coordinator sends site 0 another model *and* a round that names it: its keys do not verify
  // for the others, nor theirs for it.
  Stage honest(1);
  SecureWorld split(4);
  split.round.model = digest_named("a poisoned model");
  const SecureClient lonely = split.client(0);
  KeyBook mixed = honest.book;
  mixed.adverts[0] = lonely.advertise();

  refused("not signed", [&] { honest.site(1).share(mixed); });
  refused("not signed", [&] { Stage(0).server.accept(lonely.advertise()); });
}

TEST(MaliciousCoordinator, CannotPutItsOwnKeysInTheBook) {
  Stage stage(1);
  KeyBook forged = stage.book;
  auto random = test_random(5);
  const AgreementKey own = AgreementKey::generate(random);
  forged.adverts[2].channel_key = own.public_key();
  refused("not signed", [&] { stage.site(0).share(forged); });

  forged = stage.book;
  forged.adverts[2].mask_key = own.public_key();
  forged.adverts[2].signature = SigningKey::generate(random).sign("x", "y");
  refused("not signed", [&] { stage.site(0).share(forged); });

  EXPECT_NO_THROW(stage.site(0).share(stage.book));  // a refusal changed nothing
}

TEST(MaliciousCoordinator, CannotInventSitesOrReplayKeysOfAnotherRound) {
  Stage stage(1);
  SecureWorld later(4);
  later.round.round = 8;
  KeyBook replayed = stage.book;
  replayed.adverts[1] = later.client(1).advertise();
  refused("not signed", [&] { stage.site(0).share(replayed); });

  KeyBook sybil = stage.book;
  sybil.adverts.push_back(stage.book.adverts[3]);
  sybil.adverts.back().site = 999;
  refused("not signed", [&] { stage.site(0).share(sybil); });

  KeyBook without = stage.book;
  without.adverts.erase(without.adverts.begin());
  refused("own keys", [&] { stage.site(0).share(without); });
}

TEST(MaliciousCoordinator, CannotShrinkTheRoundToFewSites) {
  Stage stage(1);
  KeyBook few = stage.book;
  few.adverts.resize(2);
  test::expect_error(ErrorKind::Data, {"too few sites"}, [&] { stage.site(0).share(few); });

  Stage sharing(2);
  ShareDelivery little = sharing.server.delivery(sharing.id(0));
  little.boxes.resize(1);
  test::expect_error(
      ErrorKind::Data, {"too few neighbors"}, [&] { sharing.site(0).receive(little); });
}

TEST(MaliciousCoordinator, CannotShowTwoKeyBooksToOneSite) {
  Stage stage(1);
  stage.site(0).share(stage.book);
  KeyBook other = stage.book;
  other.adverts.pop_back();

  refused("differs", [&] { stage.site(0).share(other); });
}

TEST(MaliciousCoordinator, BoxesOpenOnlyForWhomAndWhereTheyWereMade) {
  Stage stage(2);
  const ShareDelivery mine = stage.server.delivery(stage.id(0));
  ShareDelivery swapped = mine;
  std::swap(swapped.boxes[0].box, swapped.boxes[1].box);
  refused("does not open", [&] { stage.site(0).receive(swapped); });

  ShareDelivery others = stage.server.delivery(stage.id(1));
  others.site = stage.id(0);
  refused("not for this site", [&] { stage.site(0).receive(others); });

  ShareDelivery twice = mine;
  twice.boxes.push_back(twice.boxes.back());
  refused("not for this site", [&] { stage.site(0).receive(twice); });

  EXPECT_NO_THROW(stage.site(0).receive(mine));
}

TEST(MaliciousCoordinator, CannotGetTwoInputsUnderOneMask) {
  Stage stage(3);

  EXPECT_NO_THROW(stage.site(0).masks(digest_named("input")));
  refused("another input", [&] { stage.site(0).masks(digest_named("another input")); });
}

TEST(MaliciousCoordinator, CannotGetBothKindsOfSharesOfOneSite) {
  // It tells site 0 that site 3 survived, and site 1 that it dropped out.
  Stage stage(3);
  const SurvivorList all{{stage.id(0), stage.id(1), stage.id(2), stage.id(3)}};
  const SurvivorList without{{stage.id(0), stage.id(1), stage.id(2)}};
  VoteBook first{all, {stage.site(0).vote(all), stage.site(2).vote(all)}};
  VoteBook second{without, {stage.site(1).vote(without)}};

  refused("too few sites have signed", [&] { stage.site(0).reveal(first); });
  refused("too few sites have signed", [&] { stage.site(1).reveal(second); });
  refused("another list", [&] { stage.site(0).reveal(second); });
  refused("differs", [&] { stage.site(0).vote(without); });
}

TEST(MaliciousCoordinator, CannotAskAgainUnderAnotherListAfterTheReveal) {
  Stage stage(3);
  const VoteBook votes = stage.vote_all({0, 1, 2, 3});
  const std::string revealed = stage.site(0).reveal(votes).encode();
  VoteBook other = votes;
  other.survivors.sites.pop_back();
  other.votes.pop_back();

  refused("another list", [&] { stage.site(0).reveal(other); });
  EXPECT_EQ(stage.site(0).reveal(votes).encode(), revealed);
  for (const Reveal::Item& item : stage.site(0).reveal(votes).items) {
    EXPECT_TRUE(item.self);
  }
}

TEST(MaliciousCoordinator, CannotClaimThatASiteDroppedOutOfWhichItHasTheInput) {
  // A forged dropout: site 3 uploaded, but is left out of the list. The others reveal its mask key;
  // its self mask, which nobody reveals, still hides its input.
  Stage stage(3);
  const SurvivorList without{{stage.id(0), stage.id(1), stage.id(2)}};
  VoteBook votes{without, {}};
  for (const uint32_t i : {0u, 1u, 2u}) {
    votes.votes.push_back(stage.site(i).vote(without));
  }
  for (const uint32_t i : {0u, 1u, 2u}) {
    for (const Reveal::Item& item : stage.site(i).reveal(votes).items) {
      EXPECT_EQ(item.self, item.of != stage.id(3));  // one kind only
    }
  }
  refused("without this site", [&] { stage.site(3).vote(without); });
}

TEST(MaliciousCoordinator, CannotForgeOrReuseVotes) {
  Stage stage(3);
  const SurvivorList all{{stage.id(0), stage.id(1), stage.id(2), stage.id(3)}};
  const ConsistencyVote own = stage.site(0).vote(all);
  const ConsistencyVote second = stage.site(1).vote(all);
  const ConsistencyVote third = stage.site(2).vote(all);
  ConsistencyVote forged = second;
  forged.site = stage.id(3);

  refused("has not signed", [&] { stage.site(0).reveal({all, {own, second, forged}}); });
  refused("has not signed", [&] { stage.site(0).reveal({all, {own, own, second}}); });
  Stage elsewhere(3, 1);
  EXPECT_NO_THROW(stage.site(0).reveal({all, {own, second, third}}));
}

TEST(MaliciousCoordinator, CannotNameTooFewSurvivorsOrUnknownOnes) {
  Stage stage(3);
  refused("too few survivors", [&] { stage.site(0).vote({{stage.id(0), stage.id(1)}}); });
  refused("not in the round", [&] {
    stage.site(0).vote({{stage.id(0), stage.id(1), stage.id(2), 999}});
  });
  refused("not in the round", [&] {
    stage.site(0).vote({{stage.id(0), stage.id(0), stage.id(1), stage.id(2)}});
  });
}

TEST(MaliciousCoordinator, CannotSkipSteps) {
  Stage fresh(1);
  refused("before", [&] { fresh.site(0).receive({fresh.id(0), {}}); });
  refused("before", [&] { fresh.site(0).masks(digest_named("input")); });
  refused("before", [&] { fresh.site(0).vote({{fresh.id(0)}}); });
  refused("before", [&] { fresh.site(0).reveal({}); });
}

TEST(MaliciousCoordinator, LearnsNothingFromAllButOneSitesMasks) {
  // It knows every secret of three colluding sites of four: the fourth's upload still carries its
  // self mask, which only a reveal by `threshold` holders gives.
  Stage stage(3);
  std::vector<uint32_t> upload(64);
  stage.site(0).masks(digest_named("input")).apply(std::span<uint32_t>(upload), 0);
  MaskPlan known;  // the pairwise masks, from the other ends
  for (const uint32_t i : {1u, 2u, 3u}) {
    const MaskPlan plan = stage.site(i).masks(digest_named("input"));
    known.add(plan.terms()[1].seed);  // terms: self, then peers ascending: site 0 comes first
  }
  for (size_t i = 0; i < known.terms().size(); ++i) {
    MaskPlan one;
    one.subtract(known.terms()[i].seed);
    one.apply(std::span<uint32_t>(upload), 0);
  }

  MaskPlan self;
  self.subtract(stage.site(0).masks(digest_named("input")).terms()[0].seed);
  EXPECT_NE(upload, std::vector<uint32_t>(64));
  self.apply(std::span<uint32_t>(upload), 0);
  EXPECT_EQ(upload, std::vector<uint32_t>(64));  // all terms together are the whole mask
}

/// The oldest inversion there is: the rows of an embedding's update that are not zero are the
/// tokens that the site has trained on.
std::vector<uint32_t> tokens_seen_in(const std::vector<uint32_t>& update, size_t width) {
  std::vector<uint32_t> tokens;
  for (size_t row = 0; row * width < update.size(); ++row) {
    const auto begin = update.begin() + static_cast<long>(row * width);
    if (std::any_of(
            begin, begin + static_cast<long>(width), [](uint32_t word) { return word != 0; })) {
      tokens.push_back(static_cast<uint32_t>(row));
    }
  }
  return tokens;
}

TEST(MaliciousCoordinator, TokensThatAPlainUpdateShowsAreNotSeenInAMaskedOne) {
  Stage stage(3);
  constexpr size_t kWidth = 16;
  const std::vector<uint32_t> tokens = {3, 17, 40, 41, 99};
  std::vector<uint32_t> update(128 * kWidth);
  for (const uint32_t token : tokens) {
    for (size_t i = 0; i < kWidth; ++i) {
      update[token * kWidth + i] = 7 + token;
    }
  }
  EXPECT_EQ(tokens_seen_in(update, kWidth), tokens);

  stage.site(0).masks(digest_named("input")).apply(std::span<uint32_t>(update), 0);

  EXPECT_EQ(tokens_seen_in(update, kWidth).size(), 128);  // every row looks the same
}

TEST(MaliciousSite, CannotSpeakForAnotherOrTwice) {
  Stage stage(0);
  SecureServer server(stage.round);
  KeyAdvert other = stage.site(0).advertise();
  other.site = stage.id(1);
  refused("not signed", [&] { server.accept(other); });
  other.site = 999;
  refused("does not take part", [&] { server.accept(other); });
  server.accept(stage.site(0).advertise());
  SecureWorld second(4);
  second.randoms[0]->seek(100000);
  refused("another message", [&] { server.accept(second.client(0).advertise()); });
  EXPECT_EQ(server.heard(), (std::vector<uint32_t>{stage.id(0)}));
}

TEST(MaliciousSite, CannotSendSharesToOthersThanItsNeighbors) {
  Stage stage(1);
  const ShareBundle good = stage.site(0).share(stage.book);
  const auto with = [&](auto&& change) {
    ShareBundle bundle = good;
    change(bundle);
    refused("not signed", [&] { stage.server.accept(bundle); });
  };
  with([](ShareBundle& b) { b.boxes.pop_back(); });
  with([](ShareBundle& b) { b.commitments.pop_back(); });
  with([](ShareBundle& b) { b.self_secret[0] ^= 1; });
  with([](ShareBundle& b) { b.boxes[0].box += "x"; });
  EXPECT_TRUE(stage.server.accept(good));
}

TEST(MaliciousSite, ComesTooLateOrFromAnotherStage) {
  Stage stage(1);
  refused("another stage", [&] { stage.server.accept(stage.site(0).advertise()); });
  stage.server.accept(stage.site(0).share(stage.book));
  stage.server.accept(stage.site(1).share(stage.book));
  stage.server.accept(stage.site(2).share(stage.book));
  stage.server.close_shares();
  refused("dropped out", [&] { stage.server.uploaded(stage.id(3)); });
  refused("has not shared", [&] { stage.server.delivery(stage.id(3)); });
  refused("has not shared", [&] { stage.server.delivery(999); });
  refused("another stage", [&] { stage.server.accept(stage.site(3).share(stage.book)); });
}

TEST(MaliciousSite, AFalseShareIsFoundAndBlamedOnItsHolder) {
  Stage stage(3);
  const VoteBook votes = stage.vote_all({0, 1, 2, 3});
  Reveal reveal = stage.site(1).reveal(votes);
  reveal.items[0].share.data()[0] ^= 1;
  refused("not signed", [&] { stage.server.accept(reveal); });

  for (const uint32_t i : {0u, 1u, 2u, 3u}) {
    stage.server.accept(stage.site(i).reveal(votes));
  }
  EXPECT_NO_THROW(stage.server.unmask());
}

}  // namespace
}  // namespace kamerton::privacy
