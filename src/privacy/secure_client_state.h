// SPDX-License-Identifier: Apache-2.0
// What a site remembers of a round, and how it is kept over a crash.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kamerton/privacy/secure_client.h"

namespace kamerton::privacy {

struct HeldShares {
  Secret mask;
  Secret self;
};

struct SecureClient::State {
  State(const SecureRound& round, uint32_t site, const SigningKey& identity, RandomSource& random);
  /// Sets the round's secrets and signs their public halves.
  void draw_keys(const AgreementKey& channel_key, const Secret& mask, const Secret& self);

  std::string encode() const;
  static std::unique_ptr<State> decode(std::string_view bytes,
                                       const SigningKey& identity,
                                       RandomSource& random);

  SecureRound round;
  storage::Digest digest;
  uint32_t site;
  SigningKey identity;
  RandomSource* random;
  std::vector<uint32_t> neighbors;
  AgreementKey channel;
  Secret mask_scalar;
  AgreementKey mask;
  Secret self_scalar;
  KeyAdvert advert;

  std::optional<KeyBook> book;
  storage::Digest book_digest = {};
  ShareBundle bundle;
  std::map<uint32_t, HeldShares> held;  ///< by owner; the site's own included
  std::optional<storage::Digest> delivery;
  std::optional<storage::Digest> input;
  std::optional<SurvivorList> survivors;
  ConsistencyVote vote;
  std::optional<Reveal> revealed;
};

}  // namespace kamerton::privacy
