// SPDX-License-Identifier: Apache-2.0
// What both sides of secure aggregation sign, derive and commit to; every text holds the round's
// digest.
#pragma once

#include <cstdint>
#include <string>

#include "kamerton/privacy/secure_message.h"

namespace kamerton::privacy {

inline constexpr char kAdvertPurpose[] = "secure aggregation: keys";
inline constexpr char kBundlePurpose[] = "secure aggregation: shares";
inline constexpr char kVotePurpose[] = "secure aggregation: survivors";
inline constexpr char kRevealPurpose[] = "secure aggregation: reveal";

std::string advert_text(const storage::Digest& round, const KeyAdvert& advert);
std::string bundle_text(const storage::Digest& round, const ShareBundle& bundle);
std::string vote_text(const storage::Digest& round,
                      const storage::Digest& book,
                      uint32_t site,
                      const SurvivorList& survivors);
std::string reveal_text(const storage::Digest& round,
                        const storage::Digest& book,
                        const Reveal& reveal);
/// What a box of shares is bound to.
std::string box_text(const storage::Digest& round,
                     const storage::Digest& book,
                     uint32_t from,
                     uint32_t to);

/// The X25519 key whose scalar is shared.
AgreementKey mask_key_of(const Secret& scalar, const storage::Digest& round);
/// The stream that a pair of sites adds and subtracts.
Secret pair_seed(const AgreementKey& own, const PublicKey& peer, const storage::Digest& round);
/// The stream that a site adds for itself.
Secret self_seed(const Secret& scalar, const storage::Digest& round);
storage::Digest self_commitment(const Secret& scalar, const storage::Digest& round);
storage::Digest share_commitment(
    const storage::Digest& round, uint32_t of, uint32_t holder, bool self, const Secret& share);

/// Where a holder's share lies on the polynomial: its position in the round, from 1.
uint32_t point_of(const SecureRound& round, uint32_t site);
/// The holders of a site's shares that are in the book, itself included, ascending.
std::vector<uint32_t> holders_in(const std::vector<uint32_t>& neighbors,
                                 const KeyBook& book,
                                 uint32_t site);

/// A box holds a share of the mask key and one of the self mask.
inline constexpr size_t kSharesBytes = 2 * Secret::kBytes;
inline constexpr size_t kBoxBytes = kSealBytes + kSharesBytes;

}  // namespace kamerton::privacy
