// SPDX-License-Identifier: Apache-2.0
// The messages of secure aggregation. Each encodes to versioned bytes; decode() refuses everything
// else with ErrorKind::Data, allocates nothing that the message does not hold, and checks no
// signature: that is the state machines' work.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kamerton/privacy/secure_round.h"

namespace kamerton::privacy {

/// R0, site to coordinator: two public keys of this round, signed by the certificate's key over
/// them, the round's digest and the digest of the model that arrived.
struct KeyAdvert {
  uint32_t site = 0;
  PublicKey channel_key = {};
  PublicKey mask_key = {};
  Signature signature = {};

  std::string encode() const;
  static KeyAdvert decode(std::string_view bytes);
  bool operator==(const KeyAdvert&) const = default;
};

/// R0, coordinator to every site: the adverts, ascending.
struct KeyBook {
  std::vector<KeyAdvert> adverts;

  std::string encode() const;
  static KeyBook decode(std::string_view bytes);
  storage::Digest digest() const;
  const KeyAdvert* find(uint32_t site) const;
};

/// What one holder gets, sealed under the key that the two agreed on.
struct SealedShares {
  uint32_t from = 0;
  uint32_t to = 0;
  std::string box;
};

/// R1, site to coordinator: sealed shares for its neighbors, and digests of all its shares and of
/// its self mask's secret, so that a false share is found later and blamed.
struct ShareBundle {
  struct Commitment {
    uint32_t holder = 0;
    storage::Digest mask_share = {};
    storage::Digest self_share = {};
  };
  uint32_t site = 0;
  storage::Digest book = {};                 ///< of the KeyBook that the site has seen
  storage::Digest self_secret = {};          ///< commitment
  std::vector<SealedShares> boxes = {};      ///< ascending `to`
  std::vector<Commitment> commitments = {};  ///< ascending holder, the site itself included
  Signature signature = {};

  std::string encode() const;
  static ShareBundle decode(std::string_view bytes);
};

/// R1, coordinator to one site: the boxes that are for it, ascending `from`.
struct ShareDelivery {
  uint32_t site = 0;
  std::vector<SealedShares> boxes = {};

  std::string encode() const;
  static ShareDelivery decode(std::string_view bytes);
};

/// R3, coordinator to every survivor: whose masked input arrived, ascending.
struct SurvivorList {
  std::vector<uint32_t> sites = {};

  std::string encode() const;
  static SurvivorList decode(std::string_view bytes);
  bool contains(uint32_t site) const;
};

/// R3, site to coordinator: its signature under the list, the key book and the round.
struct ConsistencyVote {
  uint32_t site = 0;
  Signature signature = {};

  std::string encode() const;
  static ConsistencyVote decode(std::string_view bytes);
};

/// R4, coordinator to every survivor.
struct VoteBook {
  SurvivorList survivors;
  std::vector<ConsistencyVote> votes;  ///< ascending site

  std::string encode() const;
  static VoteBook decode(std::string_view bytes);
};

/// R4, site to coordinator: one share of each neighbor and of itself; of the self mask for a
/// survivor, of the pairwise masks' key for a site that dropped out: never both.
struct Reveal {
  struct Item {
    uint32_t of = 0;
    bool self = true;  ///< false: a share of the mask key
    Secret share;
  };
  uint32_t site = 0;
  std::vector<Item> items = {};  ///< ascending `of`
  Signature signature = {};

  std::string encode() const;
  static Reveal decode(std::string_view bytes);
};

}  // namespace kamerton::privacy
