// SPDX-License-Identifier: Apache-2.0
#include "kamerton/privacy/secure_message.h"

#include <algorithm>

#include "kamerton/privacy/wire.h"

namespace kamerton::privacy {
namespace {

constexpr uint16_t kSecureMessageVersion = 1;
enum Kind : uint16_t {
  kAdvert = 2,
  kBook = 3,
  kBundle = 4,
  kDelivery = 5,
  kSurvivors = 6,
  kVote = 7,
  kVotes = 8,
  kReveal = 9,
};
/// A box holds two shares and their frame; anything longer is not one of ours.
constexpr size_t kMaxBox = 512;

void put(WireWriter& writer, const KeyAdvert& advert) {
  writer.u32(advert.site);
  writer.raw(advert.channel_key);
  writer.raw(advert.mask_key);
  writer.raw(advert.signature);
}

KeyAdvert get_advert(WireReader& reader) {
  KeyAdvert advert;
  advert.site = reader.u32();
  reader.raw(advert.channel_key);
  reader.raw(advert.mask_key);
  reader.raw(advert.signature);
  return advert;
}

void put(WireWriter& writer, const ConsistencyVote& vote) {
  writer.u32(vote.site);
  writer.raw(vote.signature);
}

ConsistencyVote get_vote(WireReader& reader) {
  ConsistencyVote vote;
  vote.site = reader.u32();
  reader.raw(vote.signature);
  return vote;
}

void put(WireWriter& writer, const std::vector<uint32_t>& sites) {
  writer.u32(static_cast<uint32_t>(sites.size()));
  for (const uint32_t site : sites) {
    writer.u32(site);
  }
}

void put(WireWriter& writer, const std::vector<SealedShares>& boxes) {
  writer.u32(static_cast<uint32_t>(boxes.size()));
  for (const SealedShares& box : boxes) {
    writer.u32(box.from);
    writer.u32(box.to);
    writer.text(box.box);
  }
}

std::vector<SealedShares> get_boxes(WireReader& reader) {
  std::vector<SealedShares> boxes(reader.count(kMaxSecureSites, 12));
  for (SealedShares& box : boxes) {
    box.from = reader.u32();
    box.to = reader.u32();
    box.box = reader.text(kMaxBox);
  }
  return boxes;
}

/// Lists are ascending: each thing is there once, and each message has one form.
template <class Range, class Key>
void check_ascending(const WireReader& reader, const Range& range, Key key) {
  const auto wrong = [&](const auto& a, const auto& b) { return key(a) >= key(b); };
  if (std::adjacent_find(range.begin(), range.end(), wrong) != range.end()) {
    reader.refuse("a list is not in ascending order");
  }
}

std::vector<uint32_t> get_sites(WireReader& reader) {
  std::vector<uint32_t> sites(reader.count(kMaxSecureSites, 4));
  for (uint32_t& site : sites) {
    site = reader.u32();
  }
  check_ascending(reader, sites, [](uint32_t site) { return site; });
  return sites;
}

}  // namespace

std::string KeyAdvert::encode() const {
  WireWriter writer(kAdvert, kSecureMessageVersion);
  put(writer, *this);
  return writer.take();
}

KeyAdvert KeyAdvert::decode(std::string_view bytes) {
  WireReader reader(bytes, kAdvert, kSecureMessageVersion, "a key advert");
  const KeyAdvert advert = get_advert(reader);
  reader.finish();
  return advert;
}

std::string KeyBook::encode() const {
  WireWriter writer(kBook, kSecureMessageVersion);
  writer.u32(static_cast<uint32_t>(adverts.size()));
  for (const KeyAdvert& advert : adverts) {
    put(writer, advert);
  }
  return writer.take();
}

KeyBook KeyBook::decode(std::string_view bytes) {
  WireReader reader(bytes, kBook, kSecureMessageVersion, "a key book");
  KeyBook book;
  book.adverts.resize(reader.count(kMaxSecureSites, 4 + 32 + 32 + 64));
  for (KeyAdvert& advert : book.adverts) {
    advert = get_advert(reader);
  }
  check_ascending(reader, book.adverts, [](const KeyAdvert& advert) { return advert.site; });
  reader.finish();
  return book;
}

storage::Digest KeyBook::digest() const {
  return storage::digest_of(encode());
}

const KeyAdvert* KeyBook::find(uint32_t site) const {
  const auto at =
      std::lower_bound(adverts.begin(), adverts.end(), site, [](const KeyAdvert& a, uint32_t want) {
        return a.site < want;
      });
  return at != adverts.end() && at->site == site ? &*at : nullptr;
}

std::string ShareBundle::encode() const {
  WireWriter writer(kBundle, kSecureMessageVersion);
  writer.u32(site);
  writer.raw(book);
  writer.raw(self_secret);
  put(writer, boxes);
  writer.u32(static_cast<uint32_t>(commitments.size()));
  for (const Commitment& commitment : commitments) {
    writer.u32(commitment.holder);
    writer.raw(commitment.mask_share);
    writer.raw(commitment.self_share);
  }
  writer.raw(signature);
  return writer.take();
}

ShareBundle ShareBundle::decode(std::string_view bytes) {
  WireReader reader(bytes, kBundle, kSecureMessageVersion, "a bundle of shares");
  ShareBundle bundle;
  bundle.site = reader.u32();
  reader.raw(bundle.book);
  reader.raw(bundle.self_secret);
  bundle.boxes = get_boxes(reader);
  check_ascending(reader, bundle.boxes, [](const SealedShares& box) { return box.to; });
  bundle.commitments.resize(reader.count(kMaxSecureSites, 4 + 64));
  for (Commitment& commitment : bundle.commitments) {
    commitment.holder = reader.u32();
    reader.raw(commitment.mask_share);
    reader.raw(commitment.self_share);
  }
  check_ascending(reader, bundle.commitments, [](const Commitment& c) { return c.holder; });
  reader.raw(bundle.signature);
  reader.finish();
  return bundle;
}

std::string ShareDelivery::encode() const {
  WireWriter writer(kDelivery, kSecureMessageVersion);
  writer.u32(site);
  put(writer, boxes);
  return writer.take();
}

ShareDelivery ShareDelivery::decode(std::string_view bytes) {
  WireReader reader(bytes, kDelivery, kSecureMessageVersion, "a delivery of shares");
  ShareDelivery delivery;
  delivery.site = reader.u32();
  delivery.boxes = get_boxes(reader);
  check_ascending(reader, delivery.boxes, [](const SealedShares& box) { return box.from; });
  reader.finish();
  return delivery;
}

std::string SurvivorList::encode() const {
  WireWriter writer(kSurvivors, kSecureMessageVersion);
  put(writer, sites);
  return writer.take();
}

SurvivorList SurvivorList::decode(std::string_view bytes) {
  WireReader reader(bytes, kSurvivors, kSecureMessageVersion, "a list of survivors");
  SurvivorList list{get_sites(reader)};
  reader.finish();
  return list;
}

bool SurvivorList::contains(uint32_t site) const {
  return std::binary_search(sites.begin(), sites.end(), site);
}

std::string ConsistencyVote::encode() const {
  WireWriter writer(kVote, kSecureMessageVersion);
  put(writer, *this);
  return writer.take();
}

ConsistencyVote ConsistencyVote::decode(std::string_view bytes) {
  WireReader reader(bytes, kVote, kSecureMessageVersion, "a vote on the survivors");
  const ConsistencyVote vote = get_vote(reader);
  reader.finish();
  return vote;
}

std::string VoteBook::encode() const {
  WireWriter writer(kVotes, kSecureMessageVersion);
  put(writer, survivors.sites);
  writer.u32(static_cast<uint32_t>(votes.size()));
  for (const ConsistencyVote& vote : votes) {
    put(writer, vote);
  }
  return writer.take();
}

VoteBook VoteBook::decode(std::string_view bytes) {
  WireReader reader(bytes, kVotes, kSecureMessageVersion, "a book of votes");
  VoteBook book;
  book.survivors.sites = get_sites(reader);
  book.votes.resize(reader.count(kMaxSecureSites, 4 + 64));
  for (ConsistencyVote& vote : book.votes) {
    vote = get_vote(reader);
  }
  check_ascending(reader, book.votes, [](const ConsistencyVote& vote) { return vote.site; });
  reader.finish();
  return book;
}

std::string Reveal::encode() const {
  WireWriter writer(kReveal, kSecureMessageVersion);
  writer.u32(site);
  writer.u32(static_cast<uint32_t>(items.size()));
  for (const Item& item : items) {
    writer.u32(item.of);
    writer.u8(item.self ? 1 : 0);
    writer.raw(item.share.bytes());
  }
  writer.raw(signature);
  return writer.take();
}

Reveal Reveal::decode(std::string_view bytes) {
  WireReader reader(bytes, kReveal, kSecureMessageVersion, "a reveal");
  Reveal reveal;
  reveal.site = reader.u32();
  reveal.items.resize(reader.count(kMaxSecureSites, 4 + 1 + Secret::kBytes));
  for (Item& item : reveal.items) {
    item.of = reader.u32();
    const uint8_t self = reader.u8();
    if (self > 1) {
      reader.refuse("a share is of neither kind", std::to_string(self));
    }
    item.self = self == 1;
    reader.raw({item.share.data(), Secret::kBytes});
  }
  // Ascending owners: one message cannot hold both kinds of shares of one site.
  check_ascending(reader, reveal.items, [](const Item& item) { return item.of; });
  reader.raw(reveal.signature);
  reader.finish();
  return reveal;
}

}  // namespace kamerton::privacy
