// SPDX-License-Identifier: Apache-2.0
#include "secure_client_state.h"

#include "kamerton/privacy/wire.h"

#include "faults.h"
#include "secure_binding.h"

namespace kamerton::privacy {
namespace {

constexpr char kSecureClientStateWhere[] = "privacy.secure_client";
constexpr uint16_t kSecureClientStateKind = 32;
constexpr uint16_t kSecureClientStateVersion = 1;
/// Of one message of the largest round; the writer is this program.
constexpr size_t kMaxMessage = size_t{64} << 20;

void put(WireWriter& writer, const Secret& secret) {
  writer.raw(secret.bytes());
}

Secret get_secret(WireReader& reader) {
  Secret secret;
  reader.raw({secret.data(), Secret::kBytes});
  return secret;
}

template <class Value, class Put>
void put_optional(WireWriter& writer, const std::optional<Value>& value, Put&& put_value) {
  writer.u8(value ? 1 : 0);
  if (value) {
    put_value(*value);
  }
}

bool get_flag(WireReader& reader) {
  const uint8_t flag = reader.u8();
  if (flag > 1) {
    reader.refuse("a flag is neither 0 nor 1", std::to_string(flag));
  }
  return flag == 1;
}

std::optional<storage::Digest> get_digest(WireReader& reader) {
  if (!get_flag(reader)) {
    return std::nullopt;
  }
  storage::Digest digest;
  reader.raw(digest);
  return digest;
}

}  // namespace

SecureClient::State::State(const SecureRound& a_round,
                           uint32_t a_site,
                           const SigningKey& key,
                           RandomSource& source)
    : round(a_round),
      digest(a_round.digest()),
      site(a_site),
      identity(key),
      random(&source),
      channel(Secret()),
      mask(Secret()) {
  round.check();
  const SecureSite* own = round.find(site);
  if (own == nullptr || own->identity != identity.public_key()) {
    refuse(kSecureClientStateWhere,
           "the round does not name this site with the key of its certificate");
  }
  neighbors = round.neighbors_of(site);
}

void SecureClient::State::draw_keys(const AgreementKey& channel_key,
                                    const Secret& mask_secret,
                                    const Secret& self_secret) {
  channel = channel_key;
  mask_scalar = mask_secret;
  mask = mask_key_of(mask_scalar, digest);
  self_scalar = self_secret;
  advert = {.site = site, .channel_key = channel.public_key(), .mask_key = mask.public_key()};
  advert.signature = identity.sign(kAdvertPurpose, advert_text(digest, advert));
}

std::string SecureClient::State::encode() const {
  WireWriter writer(kSecureClientStateKind, kSecureClientStateVersion);
  writer.text(round.encode());
  writer.u32(site);
  put(writer, channel.seed());
  put(writer, mask_scalar);
  put(writer, self_scalar);
  put_optional(writer, book, [&](const KeyBook& value) {
    writer.text(value.encode());
    writer.text(bundle.encode());
  });
  writer.u32(static_cast<uint32_t>(held.size()));
  for (const auto& [of, shares] : held) {
    writer.u32(of);
    put(writer, shares.mask);
    put(writer, shares.self);
  }
  put_optional(writer, delivery, [&](const storage::Digest& value) { writer.raw(value); });
  put_optional(writer, input, [&](const storage::Digest& value) { writer.raw(value); });
  put_optional(writer, survivors, [&](const SurvivorList& value) {
    writer.text(value.encode());
    writer.text(vote.encode());
  });
  put_optional(writer, revealed, [&](const Reveal& value) { writer.text(value.encode()); });
  return writer.take();
}

std::unique_ptr<SecureClient::State> SecureClient::State::decode(std::string_view bytes,
                                                                 const SigningKey& identity,
                                                                 RandomSource& random) {
  WireReader reader(
      bytes, kSecureClientStateKind, kSecureClientStateVersion, "the state of a round");
  const SecureRound round = SecureRound::decode(reader.text(kMaxMessage));
  const uint32_t site = reader.u32();
  auto state = std::make_unique<State>(round, site, identity, random);
  const Secret channel = get_secret(reader);
  const Secret mask = get_secret(reader);
  state->draw_keys(AgreementKey(channel), mask, get_secret(reader));
  if (get_flag(reader)) {
    state->book = KeyBook::decode(reader.text(kMaxMessage));
    state->book_digest = state->book->digest();
    state->bundle = ShareBundle::decode(reader.text(kMaxMessage));
  }
  const size_t held = reader.count(kMaxSecureSites, 4 + 2 * Secret::kBytes);
  for (size_t i = 0; i < held; ++i) {
    const uint32_t of = reader.u32();
    if (!state->book || state->book->find(of) == nullptr) {
      reader.refuse("it holds a share of a site that is not in the key book", std::to_string(of));
    }
    HeldShares shares{get_secret(reader), {}};
    shares.self = get_secret(reader);
    state->held[of] = shares;
  }
  state->delivery = get_digest(reader);
  state->input = get_digest(reader);
  if (get_flag(reader)) {
    state->survivors = SurvivorList::decode(reader.text(kMaxMessage));
    state->vote = ConsistencyVote::decode(reader.text(kMaxMessage));
  }
  if (get_flag(reader)) {
    state->revealed = Reveal::decode(reader.text(kMaxMessage));
  }
  reader.finish();
  // Later steps without the earlier ones: nothing that encode() writes.
  if ((state->delivery && !state->book) || (state->input && !state->delivery) ||
      (state->survivors && !state->input) || (state->revealed && !state->survivors)) {
    reader.refuse("its steps are out of order");
  }
  return state;
}

}  // namespace kamerton::privacy
