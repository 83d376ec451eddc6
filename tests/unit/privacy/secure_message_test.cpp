// SPDX-License-Identifier: Apache-2.0
// Every message: a round trip, every truncation, other kinds and versions, damage.
#include <gtest/gtest.h>

#include "secure_world.h"
#include "support/byte_mutator.h"
#include "support/case_count.h"
#include "support/expect_error.h"

namespace kamerton::privacy {
namespace {

struct Parser {
  std::string name;
  std::string bytes;
  std::function<std::string(std::string_view)> again;  ///< decode, then encode
};

template <class Message>
Parser parser_of(const std::string& name, const Message& message) {
  return {name, message.encode(), [](std::string_view bytes) {
            return Message::decode(bytes).encode();
          }};
}

std::vector<Parser> parsers() {
  static SecureWorld world(4);  // outlives the states' references to its randomness
  static const std::vector<Parser> all = [] {
    world.make_clients();
    SecureServer server(world.round);
    for (auto& [site, client] : world.clients) {
      server.accept(client.advertise());
    }
    const KeyBook book = server.close_adverts();
    for (auto& [site, client] : world.clients) {
      server.accept(client.share(book));
    }
    server.close_shares();
    for (auto& [site, client] : world.clients) {
      client.receive(server.delivery(site));
      client.masks(digest_named("input"));
      server.uploaded(site);
    }
    const SurvivorList survivors = server.close_uploads();
    for (auto& [site, client] : world.clients) {
      server.accept(client.vote(survivors));
    }
    const VoteBook votes = server.close_votes();
    SecureClient& client = world.clients.at(world.id(1));
    const Reveal& reveal = client.reveal(votes);
    std::vector<Parser> list = {parser_of("round", world.round),
                                parser_of("advert", client.advertise()),
                                parser_of("book", book),
                                parser_of("bundle", client.share(book)),
                                parser_of("delivery", server.delivery(world.id(1))),
                                parser_of("survivors", survivors),
                                parser_of("vote", client.vote(survivors)),
                                parser_of("votes", votes),
                                parser_of("reveal", reveal)};
    list.push_back(
        {"state", client.state(), [](std::string_view bytes) {
           return SecureClient::resume(bytes, world.identities[1], *world.randoms[1]).state();
         }});
    return list;
  }();
  return all;
}

TEST(SecureMessages, DecodeWhatTheyEncode) {
  for (const Parser& parser : parsers()) {
    EXPECT_EQ(parser.again(parser.bytes), parser.bytes) << parser.name;
  }
}

TEST(SecureMessages, EveryTruncationAndExtensionIsRefused) {
  for (const Parser& parser : parsers()) {
    const size_t step = std::max<size_t>(1, parser.bytes.size() / 200);
    for (size_t size = 0; size < parser.bytes.size(); size += step) {
      test::expect_error(core::ErrorKind::Data, {"not valid"}, [&] {
        parser.again(parser.bytes.substr(0, size));
      });
    }
    test::expect_error(
        core::ErrorKind::Data, {"follow"}, [&] { parser.again(parser.bytes + "x"); });
  }
}

TEST(SecureMessages, OtherKindsAndVersionsAreRefusedByName) {
  const auto all = parsers();
  for (size_t i = 0; i < all.size(); ++i) {
    const auto& other = all[(i + 1) % all.size()].bytes;
    test::expect_error(core::ErrorKind::Data, {"another kind"}, [&] { all[i].again(other); });
    std::string newer = all[i].bytes;
    newer[6] = 2;
    test::expect_error(core::ErrorKind::Data, {"version"}, [&] { all[i].again(newer); });
  }
}

TEST(SecureMessages, LengthsAreCheckedBeforeAnythingIsAllocated) {
  for (const Parser& parser : parsers()) {
    for (size_t at = 8; at + 4 <= parser.bytes.size() && at < 400; ++at) {
      std::string huge = parser.bytes;
      huge.replace(at, 4, "\xff\xff\xff\x7f");
      try {
        parser.again(huge);
      } catch (const core::Error& error) {
        EXPECT_NE(error.kind(), core::ErrorKind::Internal) << parser.name << " " << error.what();
      }
    }
  }
}

TEST(SecureMessagesFuzz, DamageIsRefusedOrGivesTheBytesBack) {
  const auto all = parsers();
  const uint64_t cases = test::case_count(20'000);
  for (uint64_t i = 0; i < cases; ++i) {
    const Parser& parser = all[i % all.size()];
    const test::ByteMutator mutate(
        20264, {"KPRV", std::string("\x01\0\0\0", 4), std::string("\xff\xff\0\0", 4)});
    const std::string damaged = mutate(parser.bytes, i);
    try {
      const std::string again = parser.again(damaged);
      if (parser.name != "state") {  // a state computes its public keys anew
        ASSERT_EQ(again, damaged) << parser.name << ", case " << i;
      }
    } catch (const core::Error& error) {
      ASSERT_TRUE(error.kind() == core::ErrorKind::Data ||
                  (parser.name == "state" && error.kind() == core::ErrorKind::Permission))
          << parser.name << ", case " << i << ": " << error.what();
    }
  }
}

}  // namespace
}  // namespace kamerton::privacy
