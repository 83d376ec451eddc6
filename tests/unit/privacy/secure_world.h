// SPDX-License-Identifier: Apache-2.0
// Sites and a coordinator of secure aggregation in one process, for tests.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <set>
#include <vector>

#include "kamerton/privacy/ring.h"
#include "kamerton/privacy/secure_client.h"
#include "kamerton/privacy/secure_server.h"

#include "bytes.h"

namespace kamerton::privacy {

inline storage::Digest digest_named(const std::string& text) {
  return storage::digest_of(text);
}

/// Where a site falls out: before it sends the message of this stage (5: never).
using Dropouts = std::map<uint32_t, int>;

struct SecureWorld {
  explicit SecureWorld(uint32_t n, uint32_t neighbors = 0, uint64_t seed = 1) {
    for (uint32_t i = 0; i < n; ++i) {
      randoms.push_back(std::make_unique<KeyedRandom>(Secret(), 1000 * seed + i));
      identities.push_back(SigningKey::generate(*randoms.back()));
      round.sites.push_back({.id = 10 + 3 * i,
                             .name = "site-" + std::to_string(i),
                             .identity = identities.back().public_key()});
    }
    round.run = digest_named("run");
    round.round = 7;
    round.model = digest_named("model");
    round.neighbors = neighbors;
    round.threshold = two_thirds(round.holders());
    round.quorum = two_thirds(n);
  }

  uint32_t id(uint32_t i) const { return round.sites[i].id; }

  SecureClient client(uint32_t i) {
    return SecureClient(round, id(i), identities[i], round.model, *randoms[i]);
  }

  void make_clients() {
    for (uint32_t i = 0; i < round.sites.size(); ++i) {
      clients.emplace(id(i), client(i));
    }
  }

  template <class Word>
  static std::vector<Word> input_of(uint32_t site, size_t size) {
    std::vector<Word> values(size);
    KeyedRandom random(Secret(), 77000 + site);
    random.fill({reinterpret_cast<uint8_t*>(values.data()), size * sizeof(Word)});
    return values;
  }

  /// The whole protocol through encoded messages. Returns the unmasked sum; throws what a stage
  /// throws. Sites in `drops` fall silent.
  template <class Word>
  std::vector<Word> run(size_t size, const Dropouts& drops) {
    const auto speaks = [&](uint32_t site, int stage) {
      const auto at = drops.find(site);
      return at == drops.end() || stage < at->second;
    };
    make_clients();
    SecureServer server(round);
    for (auto& [site, client] : clients) {
      if (speaks(site, 0)) {
        server.accept(KeyAdvert::decode(client.advertise().encode()));
      }
    }
    const KeyBook book = KeyBook::decode(server.close_adverts().encode());
    for (const KeyAdvert& advert : book.adverts) {
      if (speaks(advert.site, 1)) {
        server.accept(ShareBundle::decode(clients.at(advert.site).share(book).encode()));
      }
    }
    const std::vector<uint32_t> sharing = server.heard();
    server.close_shares();
    std::vector<Word> sum(size);
    for (const uint32_t site : sharing) {
      if (speaks(site, 2)) {
        SecureClient& client = clients.at(site);
        client.receive(ShareDelivery::decode(server.delivery(site).encode()));
        std::vector<Word> values = input_of<Word>(site, size);
        client.masks(digest_named("input")).apply(std::span<Word>(values), 0);
        ring_add(std::span<Word>(sum), std::span<const Word>(values));
        server.uploaded(site);
      }
    }
    const SurvivorList survivors = SurvivorList::decode(server.close_uploads().encode());
    for (const uint32_t site : survivors.sites) {
      if (speaks(site, 3)) {
        server.accept(ConsistencyVote::decode(clients.at(site).vote(survivors).encode()));
      }
    }
    const VoteBook votes = VoteBook::decode(server.close_votes().encode());
    for (const uint32_t site : survivors.sites) {
      if (speaks(site, 4)) {
        server.accept(Reveal::decode(clients.at(site).reveal(votes).encode()));
      }
    }
    server.unmask().apply(std::span<Word>(sum), 0);
    return sum;
  }

  /// What the sum must be: all sites that speak at the upload.
  template <class Word>
  std::vector<Word> plain_sum(size_t size, const Dropouts& drops) const {
    std::vector<Word> sum(size);
    for (const SecureSite& site : round.sites) {
      const auto at = drops.find(site.id);
      if (at == drops.end() || at->second > 2) {
        ring_add(std::span<Word>(sum), std::span<const Word>(input_of<Word>(site.id, size)));
      }
    }
    return sum;
  }

  SecureRound round;
  std::vector<std::unique_ptr<KeyedRandom>> randoms;
  std::vector<SigningKey> identities;
  std::map<uint32_t, SecureClient> clients;
};

}  // namespace kamerton::privacy
