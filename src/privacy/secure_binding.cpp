// SPDX-License-Identifier: Apache-2.0
#include "secure_binding.h"

#include <algorithm>

#include "kamerton/privacy/wire.h"

namespace kamerton::privacy {
namespace {

WireWriter bound_to(const storage::Digest& round) {
  WireWriter writer;
  writer.raw(round);
  return writer;
}

std::string as_context(const storage::Digest& round) {
  return bound_to(round).take();
}

}  // namespace

std::string advert_text(const storage::Digest& round, const KeyAdvert& advert) {
  WireWriter writer = bound_to(round);
  writer.u32(advert.site);
  writer.raw(advert.channel_key);
  writer.raw(advert.mask_key);
  return writer.take();
}

std::string bundle_text(const storage::Digest& round, const ShareBundle& bundle) {
  ShareBundle unsigned_bundle = bundle;
  unsigned_bundle.signature = {};
  WireWriter writer = bound_to(round);
  writer.text(unsigned_bundle.encode());
  return writer.take();
}

std::string vote_text(const storage::Digest& round,
                      const storage::Digest& book,
                      uint32_t site,
                      const SurvivorList& survivors) {
  WireWriter writer = bound_to(round);
  writer.raw(book);
  writer.u32(site);
  writer.text(survivors.encode());
  return writer.take();
}

std::string reveal_text(const storage::Digest& round,
                        const storage::Digest& book,
                        const Reveal& reveal) {
  Reveal unsigned_reveal = reveal;
  unsigned_reveal.signature = {};
  WireWriter writer = bound_to(round);
  writer.raw(book);
  writer.text(unsigned_reveal.encode());
  return writer.take();
}

std::string box_text(const storage::Digest& round,
                     const storage::Digest& book,
                     uint32_t from,
                     uint32_t to) {
  WireWriter writer = bound_to(round);
  writer.raw(book);
  writer.u32(from);
  writer.u32(to);
  return writer.take();
}

AgreementKey mask_key_of(const Secret& scalar, const storage::Digest& round) {
  return AgreementKey(derive(scalar, "mask key", as_context(round)));
}

Secret pair_seed(const AgreementKey& own, const PublicKey& peer, const storage::Digest& round) {
  return own.agree(peer, "pairwise mask", as_context(round));
}

Secret self_seed(const Secret& scalar, const storage::Digest& round) {
  return derive(scalar, "self mask", as_context(round));
}

storage::Digest self_commitment(const Secret& scalar, const storage::Digest& round) {
  WireWriter writer = bound_to(round);
  writer.text("self secret");
  writer.raw(scalar.bytes());
  return storage::digest_of(writer.bytes());
}

storage::Digest share_commitment(
    const storage::Digest& round, uint32_t of, uint32_t holder, bool self, const Secret& share) {
  WireWriter writer = bound_to(round);
  writer.text(self ? "share of the self mask" : "share of the mask key");
  writer.u32(of);
  writer.u32(holder);
  writer.raw(share.bytes());
  return storage::digest_of(writer.bytes());
}

uint32_t point_of(const SecureRound& round, uint32_t site) {
  return static_cast<uint32_t>(round.find(site) - round.sites.data()) + 1;
}

std::vector<uint32_t> holders_in(const std::vector<uint32_t>& neighbors,
                                 const KeyBook& book,
                                 uint32_t site) {
  std::vector<uint32_t> holders = neighbors;
  holders.insert(std::lower_bound(holders.begin(), holders.end(), site), site);
  std::erase_if(holders, [&](uint32_t holder) { return book.find(holder) == nullptr; });
  return holders;
}

}  // namespace kamerton::privacy
