// SPDX-License-Identifier: Apache-2.0
#include "kamerton/privacy/secure_client.h"

#include <algorithm>

#include "kamerton/privacy/shamir.h"
#include "kamerton/privacy/wire.h"

#include "faults.h"
#include "secure_binding.h"
#include "secure_client_state.h"

namespace kamerton::privacy {
namespace {

constexpr char kSecureClientWhere[] = "privacy.secure_client";

std::string named(const SecureRound& round, uint32_t site) {
  const SecureSite* found = round.find(site);
  return "site " + std::to_string(site) + (found == nullptr ? "" : " '" + found->name + "'");
}

/// A step was taken with another message before: an answer to this one could undo what that one
/// hid.
[[noreturn]] void refuse_second(const std::string& what) {
  refuse(kSecureClientWhere,
         what + " differs from the one that this round has already been answered with");
}

void check_book(const SecureClient::State& state, const KeyBook& book) {
  const SecureRound& round = state.round;
  for (const KeyAdvert& advert : book.adverts) {
    const SecureSite* site = round.find(advert.site);
    if (site == nullptr ||
        !verify(
            site->identity, kAdvertPurpose, advert_text(state.digest, advert), advert.signature)) {
      refuse(kSecureClientWhere,
             "the keys of " + named(round, advert.site) +
                 " are not signed by its certificate for this round and model");
    }
  }
  const KeyAdvert* own = book.find(state.site);
  if (own == nullptr || !(*own == state.advert)) {
    refuse(kSecureClientWhere, "the key book does not hold this site's own keys");
  }
  const size_t holders = holders_in(state.neighbors, book, state.site).size();
  if (book.adverts.size() < round.quorum || holders < round.threshold) {
    bad_data(
        kSecureClientWhere,
        "too few sites are in the round",
        std::to_string(book.adverts.size()) + " sites, " + std::to_string(holders) + " holders",
        "at least " + std::to_string(round.quorum) + " sites and " +
            std::to_string(round.threshold) + " holders");
  }
}

Secret channel_key(const SecureClient::State& state, uint32_t peer) {
  return state.channel.agree(state.book->find(peer)->channel_key,
                             "channel",
                             box_text(state.digest, state.book_digest, 0, 0));
}

ShareBundle make_bundle(SecureClient::State& state) {
  const std::vector<uint32_t> holders = holders_in(state.neighbors, *state.book, state.site);
  std::vector<uint32_t> points;
  for (const uint32_t holder : holders) {
    points.push_back(point_of(state.round, holder));
  }
  const auto mask = split(state.mask_scalar, points, state.round.threshold, *state.random);
  const auto self = split(state.self_scalar, points, state.round.threshold, *state.random);
  ShareBundle bundle{.site = state.site,
                     .book = state.book_digest,
                     .self_secret = self_commitment(state.self_scalar, state.digest)};
  for (size_t i = 0; i < holders.size(); ++i) {
    const uint32_t to = holders[i];
    bundle.commitments.push_back({to,
                                  share_commitment(state.digest, state.site, to, false, mask[i].y),
                                  share_commitment(state.digest, state.site, to, true, self[i].y)});
    if (to == state.site) {
      state.held[to] = {mask[i].y, self[i].y};
      continue;
    }
    WireWriter shares;
    shares.raw(mask[i].y.bytes());
    shares.raw(self[i].y.bytes());
    std::string text = shares.take();
    bundle.boxes.push_back({state.site,
                            to,
                            seal(channel_key(state, to),
                                 text,
                                 box_text(state.digest, state.book_digest, state.site, to),
                                 *state.random)});
    wipe(text.data(), text.size());
  }
  bundle.signature = state.identity.sign(kBundlePurpose, bundle_text(state.digest, bundle));
  return bundle;
}

HeldShares open_box(const SecureClient::State& state, const SealedShares& box) {
  std::string text = open(channel_key(state, box.from),
                          box.box,
                          box_text(state.digest, state.book_digest, box.from, state.site));
  WireReader reader(text, "a box of shares");
  HeldShares held;
  reader.raw({held.mask.data(), Secret::kBytes});
  reader.raw({held.self.data(), Secret::kBytes});
  reader.finish();
  wipe(text.data(), text.size());
  return held;
}

void check_survivors(const SecureClient::State& state, const SurvivorList& survivors) {
  const SecureRound& round = state.round;
  if (!survivors.contains(state.site)) {
    refuse(kSecureClientWhere, "a list of survivors without this site would reveal its masks' key");
  }
  for (size_t i = 0; i < survivors.sites.size(); ++i) {
    const uint32_t site = survivors.sites[i];
    if ((i > 0 && site <= survivors.sites[i - 1]) || state.book->find(site) == nullptr) {
      refuse(kSecureClientWhere,
             "a list of survivors names a site twice, or one that is not in the round");
    }
    const bool neighbor = std::binary_search(state.neighbors.begin(), state.neighbors.end(), site);
    if (neighbor && !state.held.contains(site)) {
      refuse(kSecureClientWhere,
             named(round, site) + " is said to survive, but its shares were never delivered");
    }
  }
  if (survivors.sites.size() < round.quorum) {
    refuse(kSecureClientWhere,
           "too few survivors: their sum would say too much about each",
           std::to_string(survivors.sites.size()),
           "at least " + std::to_string(round.quorum));
  }
}

void check_votes(const SecureClient::State& state, const VoteBook& book) {
  size_t good = 0;
  uint32_t last = 0;
  for (size_t i = 0; i < book.votes.size(); ++i) {
    const ConsistencyVote& vote = book.votes[i];
    const bool ascending = i == 0 || vote.site > last;
    last = vote.site;
    const SecureSite* site = state.round.find(vote.site);
    if (!ascending || site == nullptr || !book.survivors.contains(vote.site) ||
        !verify(site->identity,
                kVotePurpose,
                vote_text(state.digest, state.book_digest, vote.site, *state.survivors),
                vote.signature)) {
      refuse(kSecureClientWhere,
             named(state.round, vote.site) + " has not signed this list of survivors");
    }
    ++good;
  }
  if (good < state.round.quorum) {
    refuse(kSecureClientWhere,
           "too few sites have signed the list of survivors: others may have been told another one",
           std::to_string(good),
           "at least " + std::to_string(state.round.quorum));
  }
}

}  // namespace

SecureClient::SecureClient(std::unique_ptr<State> state) : state_(std::move(state)) {}
SecureClient::~SecureClient() = default;
SecureClient::SecureClient(SecureClient&&) noexcept = default;
SecureClient& SecureClient::operator=(SecureClient&&) noexcept = default;

SecureClient::SecureClient(const SecureRound& round,
                           uint32_t site,
                           const SigningKey& identity,
                           const storage::Digest& received_model,
                           RandomSource& random)
    : state_(std::make_unique<State>(round, site, identity, random)) {
  if (received_model != round.model) {
    refuse(
        kSecureClientWhere,
        "the model that arrived is not the one that the round is about: other sites may have been "
        "sent another",
        storage::to_hex(received_model),
        storage::to_hex(round.model));
  }
  state_->draw_keys(AgreementKey::generate(random), random_scalar(random), random_scalar(random));
}

const KeyAdvert& SecureClient::advertise() const {
  return state_->advert;
}

const ShareBundle& SecureClient::share(const KeyBook& book) {
  State& state = *state_;
  if (state.book) {
    if (book.digest() != state.book_digest) {
      refuse_second("the key book");
    }
    return state.bundle;
  }
  check_book(state, book);
  state.book = book;
  state.book_digest = book.digest();
  state.bundle = make_bundle(state);
  return state.bundle;
}

void SecureClient::receive(const ShareDelivery& delivery) {
  State& state = *state_;
  const storage::Digest digest = storage::digest_of(delivery.encode());
  if (state.delivery) {
    if (digest != *state.delivery) {
      refuse_second("the delivery of shares");
    }
    return;
  }
  if (!state.book) {
    refuse(kSecureClientWhere, "shares arrived before the key book");
  }
  std::map<uint32_t, HeldShares> held = state.held;
  for (const SealedShares& box : delivery.boxes) {
    const bool neighbor =
        std::binary_search(state.neighbors.begin(), state.neighbors.end(), box.from);
    if (delivery.site != state.site || box.to != state.site || !neighbor ||
        state.book->find(box.from) == nullptr || held.contains(box.from)) {
      refuse(kSecureClientWhere,
             "a share is not for this site, or not from a neighbor",
             named(state.round, box.from));
    }
    held[box.from] = open_box(state, box);
  }
  if (held.size() < state.round.threshold) {
    bad_data(kSecureClientWhere,
             "too few neighbors have shared their secrets",
             std::to_string(held.size()),
             "at least " + std::to_string(state.round.threshold));
  }
  state.held = std::move(held);
  state.delivery = digest;
}

MaskPlan SecureClient::masks(const storage::Digest& input) {
  State& state = *state_;
  if (!state.delivery) {
    refuse(kSecureClientWhere, "masks are asked for before the shares arrived");
  }
  if (state.input && *state.input != input) {
    refuse(kSecureClientWhere,
           "another input has been masked in this round: two under one mask would give away their "
           "difference",
           storage::to_hex(input),
           storage::to_hex(*state.input),
           "send the first one again, or leave the round");
  }
  state.input = input;
  MaskPlan plan;
  plan.add(self_seed(state.self_scalar, state.digest));
  for (const auto& [peer, shares] : state.held) {
    if (peer != state.site) {
      const Secret seed = pair_seed(state.mask, state.book->find(peer)->mask_key, state.digest);
      peer > state.site ? plan.add(seed) : plan.subtract(seed);
    }
  }
  return plan;
}

const ConsistencyVote& SecureClient::vote(const SurvivorList& survivors) {
  State& state = *state_;
  if (state.survivors) {
    if (survivors.sites != state.survivors->sites) {
      refuse_second("the list of survivors");
    }
    return state.vote;
  }
  if (!state.input) {
    refuse(kSecureClientWhere, "survivors are named before this site's input was masked");
  }
  check_survivors(state, survivors);
  state.survivors = survivors;
  state.vote = {
      state.site,
      state.identity.sign(kVotePurpose,
                          vote_text(state.digest, state.book_digest, state.site, survivors))};
  return state.vote;
}

const Reveal& SecureClient::reveal(const VoteBook& book) {
  State& state = *state_;
  if (!state.survivors) {
    refuse(kSecureClientWhere, "shares are asked for before this site voted on the survivors");
  }
  if (book.survivors.sites != state.survivors->sites) {
    refuse(
        kSecureClientWhere,
        "shares are asked for under another list of survivors than this site voted for: both kinds "
        "of shares of one site would become known");
  }
  if (!state.revealed) {
    check_votes(state, book);
    Reveal reveal{.site = state.site};
    for (const auto& [of, shares] : state.held) {
      const bool alive = state.survivors->contains(of);
      reveal.items.push_back({of, alive, alive ? shares.self : shares.mask});
    }
    reveal.signature =
        state.identity.sign(kRevealPurpose, reveal_text(state.digest, state.book_digest, reveal));
    state.revealed = std::move(reveal);
  }
  return *state.revealed;
}

std::string SecureClient::state() const {
  return state_->encode();
}

SecureClient SecureClient::resume(std::string_view bytes,
                                  const SigningKey& identity,
                                  RandomSource& random) {
  return SecureClient(State::decode(bytes, identity, random));
}

}  // namespace kamerton::privacy
