// SPDX-License-Identifier: Apache-2.0
#include "kamerton/privacy/secure_server.h"

#include <algorithm>
#include <map>
#include <set>

#include "kamerton/privacy/shamir.h"

#include "faults.h"
#include "secure_binding.h"

namespace kamerton::privacy {
namespace {

constexpr char kSecureServerWhere[] = "privacy.secure_server";

template <class Map>
std::vector<uint32_t> keys_of(const Map& map) {
  std::vector<uint32_t> keys;
  for (const auto& [key, value] : map) {
    keys.push_back(key);
  }
  return keys;
}

std::string_view stage_name(SecureStage stage) {
  constexpr std::string_view kNames[] = {
      "key adverts", "shares", "masked inputs", "votes", "reveals"};
  return kNames[static_cast<size_t>(stage)];
}

}  // namespace

struct SecureServer::State {
  SecureRound round;
  storage::Digest digest = {};
  SecureStage stage = SecureStage::Adverts;
  std::map<uint32_t, KeyAdvert> adverts;
  KeyBook book;
  storage::Digest book_digest = {};
  std::map<uint32_t, ShareBundle> bundles;  ///< U2
  std::set<uint32_t> uploads;
  SurvivorList survivors;  ///< U3
  std::map<uint32_t, ConsistencyVote> votes;
  VoteBook vote_book;
  std::map<uint32_t, Reveal> reveals;
  std::map<uint32_t, std::vector<uint32_t>> holders;  ///< of a site's shares, in the book
  std::map<uint32_t, uint32_t> revealed;              ///< shares known of a site's secret

  [[noreturn]] void refuse_site(uint32_t site, const std::string& why) const {
    const SecureSite* found = round.find(site);
    refuse(kSecureServerWhere,
           "site " + std::to_string(site) + (found == nullptr ? "" : " '" + found->name + "'") +
               ": " + why);
  }

  /// The site, if it may speak in this stage now.
  const SecureSite& speaker(uint32_t site, SecureStage when, bool awaited) const {
    const SecureSite* found = round.find(site);
    if (found == nullptr) {
      refuse_site(site, "it does not take part in this round");
    }
    if (stage != when) {
      refuse_site(site,
                  "its message is for another stage (" + std::string(stage_name(when)) +
                      ") than the round is in (" + std::string(stage_name(stage)) + ")");
    }
    if (!awaited) {
      refuse_site(site, "it has dropped out of this round");
    }
    return *found;
  }

  /// true: a new message; false: the same one again.
  template <class Message>
  bool keep(std::map<uint32_t, Message>& kept, const Message& message) {
    const auto [at, fresh] = kept.emplace(message.site, message);
    if (!fresh && at->second.encode() != message.encode()) {
      refuse_site(message.site, "it has sent another message in place of its first one");
    }
    return fresh;
  }

  void need(size_t count, size_t least) const {
    if (count < least) {
      throw core::Error(core::ErrorKind::NoProgress,
                        {.where = kSecureServerWhere,
                         .what = "too few sites are left in the round after the stage '" +
                                 std::string(stage_name(stage)) + "'",
                         .got = std::to_string(count),
                         .allowed = "at least " + std::to_string(least),
                         .hint = "keep the model and start the round again with new keys"});
    }
  }

  /// Once the key book stands.
  void find_holders() {
    const auto lists = round.neighbor_lists();
    for (size_t i = 0; i < lists.size(); ++i) {
      const uint32_t site = round.sites[i].id;
      if (book.find(site) != nullptr) {
        holders[site] = holders_in(lists[i], book, site);
      }
    }
  }

  /// Whose shares `site` must reveal: its neighbors that shared, and itself.
  std::vector<uint32_t> held_by(uint32_t site) const {
    std::vector<uint32_t> owners = holders.at(site);
    std::erase_if(owners, [&](uint32_t owner) { return !bundles.contains(owner); });
    return owners;
  }

  /// The first `threshold` ones revealed, by ascending holder.
  std::vector<Share> shares_of(uint32_t owner) const {
    std::vector<Share> shares;
    for (const uint32_t holder : holders.at(owner)) {
      const auto reveal = reveals.find(holder);
      if (reveal == reveals.end() || shares.size() == round.threshold) {
        continue;
      }
      const auto& items = reveal->second.items;
      const auto item = std::lower_bound(
          items.begin(), items.end(), owner, [](const auto& i, uint32_t of) { return i.of < of; });
      shares.push_back({point_of(round, holder), item->share});
    }
    return shares;
  }

  bool can_unmask() const {
    return std::all_of(bundles.begin(), bundles.end(), [&](const auto& bundle) {
      const auto found = revealed.find(bundle.first);
      return found != revealed.end() && found->second >= round.threshold;
    });
  }
};

SecureServer::SecureServer(const SecureRound& round) : state_(std::make_unique<State>()) {
  round.check();
  state_->round = round;
  state_->digest = round.digest();
}

SecureServer::~SecureServer() = default;
SecureServer::SecureServer(SecureServer&&) noexcept = default;
SecureServer& SecureServer::operator=(SecureServer&&) noexcept = default;

SecureStage SecureServer::stage() const noexcept {
  return state_->stage;
}
const SecureRound& SecureServer::round() const noexcept {
  return state_->round;
}
const KeyBook& SecureServer::book() const {
  return state_->book;
}
const SurvivorList& SecureServer::survivors() const {
  return state_->survivors;
}
const VoteBook& SecureServer::votes() const {
  return state_->vote_book;
}

std::vector<uint32_t> SecureServer::expected() const {
  switch (state_->stage) {
    case SecureStage::Adverts: {
      std::vector<uint32_t> all;
      for (const SecureSite& site : state_->round.sites) {
        all.push_back(site.id);
      }
      return all;
    }
    case SecureStage::Shares:
      return keys_of(state_->adverts);
    case SecureStage::Uploads:
      return keys_of(state_->bundles);
    case SecureStage::Votes:
    case SecureStage::Reveals:
      break;
  }
  return state_->survivors.sites;
}

std::vector<uint32_t> SecureServer::heard() const {
  switch (state_->stage) {
    case SecureStage::Adverts:
      return keys_of(state_->adverts);
    case SecureStage::Shares:
      return keys_of(state_->bundles);
    case SecureStage::Uploads:
      return {state_->uploads.begin(), state_->uploads.end()};
    case SecureStage::Votes:
      return keys_of(state_->votes);
    case SecureStage::Reveals:
      break;
  }
  return keys_of(state_->reveals);
}

bool SecureServer::enough() const {
  return state_->stage == SecureStage::Reveals ? state_->can_unmask()
                                               : heard().size() >= state_->round.quorum;
}

bool SecureServer::accept(const KeyAdvert& advert) {
  State& state = *state_;
  const SecureSite& site = state.speaker(advert.site, SecureStage::Adverts, true);
  if (!verify(site.identity, kAdvertPurpose, advert_text(state.digest, advert), advert.signature)) {
    state.refuse_site(advert.site,
                      "its keys are not signed by its certificate for this round and model");
  }
  return state.keep(state.adverts, advert);
}

const KeyBook& SecureServer::close_adverts() {
  State& state = *state_;
  state.need(state.adverts.size(), state.round.quorum);
  for (const auto& [site, advert] : state.adverts) {
    state.book.adverts.push_back(advert);
  }
  state.book_digest = state.book.digest();
  state.find_holders();
  state.stage = SecureStage::Shares;
  return state.book;
}

bool SecureServer::accept(const ShareBundle& bundle) {
  State& state = *state_;
  const uint32_t own = bundle.site;
  const SecureSite& site = state.speaker(own, SecureStage::Shares, state.adverts.contains(own));
  if (!verify(site.identity, kBundlePurpose, bundle_text(state.digest, bundle), bundle.signature)) {
    state.refuse_site(own, "its shares are not signed by its certificate for this round");
  }
  const std::vector<uint32_t>& holders = state.holders.at(own);
  bool fits = bundle.book == state.book_digest && bundle.commitments.size() == holders.size() &&
              bundle.boxes.size() + 1 == holders.size();
  for (size_t i = 0, box = 0; fits && i < holders.size(); ++i) {
    fits = bundle.commitments[i].holder == holders[i];
    if (fits && holders[i] != own) {
      fits = bundle.boxes[box].from == own && bundle.boxes[box].to == holders[i] &&
             bundle.boxes[box].box.size() == kBoxBytes;
      ++box;
    }
  }
  if (!fits) {
    state.refuse_site(own, "its shares are not the ones that its neighbors in the key book need");
  }
  return state.keep(state.bundles, bundle);
}

void SecureServer::close_shares() {
  state_->need(state_->bundles.size(), state_->round.quorum);
  state_->stage = SecureStage::Uploads;
}

ShareDelivery SecureServer::delivery(uint32_t site) const {
  if (!state_->bundles.contains(site)) {
    state_->refuse_site(site, "it has not shared its secrets in this round");
  }
  ShareDelivery delivery{.site = site};
  for (const uint32_t owner : state_->held_by(site)) {
    if (owner == site) {
      continue;
    }
    const auto& boxes = state_->bundles.at(owner).boxes;
    const auto box = std::find_if(
        boxes.begin(), boxes.end(), [&](const SealedShares& b) { return b.to == site; });
    if (box != boxes.end()) {
      delivery.boxes.push_back(*box);
    }
  }
  return delivery;
}

bool SecureServer::uploaded(uint32_t site) {
  state_->speaker(site, SecureStage::Uploads, state_->bundles.contains(site));
  return state_->uploads.insert(site).second;
}

const SurvivorList& SecureServer::close_uploads() {
  state_->need(state_->uploads.size(), state_->round.quorum);
  state_->survivors.sites.assign(state_->uploads.begin(), state_->uploads.end());
  state_->stage = SecureStage::Votes;
  return state_->survivors;
}

bool SecureServer::accept(const ConsistencyVote& vote) {
  State& state = *state_;
  const SecureSite& site =
      state.speaker(vote.site, SecureStage::Votes, state.survivors.contains(vote.site));
  const std::string text = vote_text(state.digest, state.book_digest, vote.site, state.survivors);
  if (!verify(site.identity, kVotePurpose, text, vote.signature)) {
    state.refuse_site(vote.site, "its vote is not for this list of survivors");
  }
  return state.keep(state.votes, vote);
}

const VoteBook& SecureServer::close_votes() {
  State& state = *state_;
  state.need(state.votes.size(), state.round.quorum);
  state.vote_book.survivors = state.survivors;
  for (const auto& [site, vote] : state.votes) {
    state.vote_book.votes.push_back(vote);
  }
  state.stage = SecureStage::Reveals;
  return state.vote_book;
}

bool SecureServer::accept(const Reveal& reveal) {
  State& state = *state_;
  const uint32_t own = reveal.site;
  const SecureSite& site = state.speaker(own, SecureStage::Reveals, state.survivors.contains(own));
  if (!verify(site.identity,
              kRevealPurpose,
              reveal_text(state.digest, state.book_digest, reveal),
              reveal.signature)) {
    state.refuse_site(own, "what it reveals is not signed by its certificate for this round");
  }
  const std::vector<uint32_t> owners = state.held_by(own);
  bool fits = reveal.items.size() == owners.size();
  for (size_t i = 0; fits && i < owners.size(); ++i) {
    const Reveal::Item& item = reveal.items[i];
    fits = item.of == owners[i] && item.self == state.survivors.contains(item.of);
    if (!fits) {
      break;
    }
    const auto& promised = state.bundles.at(item.of).commitments;
    const auto at = std::find_if(
        promised.begin(), promised.end(), [&](const auto& c) { return c.holder == own; });
    const storage::Digest found =
        share_commitment(state.digest, item.of, own, item.self, item.share);
    if (at == promised.end() || found != (item.self ? at->self_share : at->mask_share)) {
      state.refuse_site(
          own,
          "its share of site " + std::to_string(item.of) + " is not the one that was given to it");
    }
  }
  if (!fits) {
    state.refuse_site(own, "it reveals other shares than the list of survivors asks for");
  }
  const bool fresh = state.keep(state.reveals, reveal);
  for (size_t i = 0; fresh && i < owners.size(); ++i) {
    ++state.revealed[owners[i]];
  }
  return fresh;
}

namespace {

/// Secrets from revealed shares; holders in common share their factors.
class Rebuilder {
 public:
  using Factors = std::map<std::vector<uint32_t>, std::vector<Secret>>;

  Secret operator()(const std::vector<Share>& shares) {
    std::vector<uint32_t> points;
    for (const Share& share : shares) {
      points.push_back(share.x);
    }
    auto at = factors_.find(points);
    if (at == factors_.end()) {
      at = factors_.emplace(points, lagrange_at_zero(points)).first;
    }
    return combine(shares, at->second);
  }

 private:
  Factors factors_;
};

}  // namespace

MaskPlan SecureServer::unmask() const {
  const State& state = *state_;
  if (state.stage != SecureStage::Reveals || !state.can_unmask()) {
    state.need(state.stage == SecureStage::Reveals ? state.reveals.size() : 0, state.round.quorum);
    state.need(0, state.round.threshold);  // some site's holders are fewer than the threshold
  }
  Rebuilder rebuild;
  MaskPlan plan;
  for (const auto& [owner, bundle] : state.bundles) {
    const bool alive = state.survivors.contains(owner);
    const Secret scalar = rebuild(state.shares_of(owner));
    const AgreementKey mask = mask_key_of(scalar, state.digest);
    const bool good = alive ? self_commitment(scalar, state.digest) == bundle.self_secret
                            : mask.public_key() == state.book.find(owner)->mask_key;
    if (!good) {
      state.refuse_site(owner, "the shares that it gave out do not add up to what it published");
    }
    if (alive) {
      plan.subtract(self_seed(scalar, state.digest));
      continue;
    }
    for (const uint32_t peer : state.holders.at(owner)) {
      if (peer != owner && state.survivors.contains(peer)) {
        const Secret seed = pair_seed(mask, state.book.find(peer)->mask_key, state.digest);
        owner > peer ? plan.subtract(seed) : plan.add(seed);  // what the peer did, undone
      }
    }
  }
  return plan;
}

}  // namespace kamerton::privacy
