// SPDX-License-Identifier: Apache-2.0
// What all sites of a round of secure aggregation agree on before it starts.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kamerton/privacy/keys.h"
#include "kamerton/storage/digest.h"

namespace kamerton::privacy {

struct SecureSite {
  uint32_t id = 0;     ///< the site's number in the roster
  std::string name;    ///< at most 128 bytes
  PublicKey identity;  ///< the Ed25519 key of its certificate
};

/// Every key, share and signature of a round is bound to digest(): nothing of one run, round,
/// roster or model is good for another.
struct SecureRound {
  storage::Digest run = {};  ///< of the signed run manifest
  uint64_t round = 0;
  storage::Digest model = {};     ///< of the global model that the sites were sent
  std::vector<SecureSite> sites;  ///< the sampled ones, by ascending id
  /// Complete graph: 0. Otherwise each site exchanges masks and shares with this many others
  /// (even).
  uint32_t neighbors = 0;
  /// Of a site's share holders (its neighbors and itself), how many are needed to rebuild a secret.
  uint32_t threshold = 0;
  /// Signatures on the same list of survivors before a site reveals anything.
  uint32_t quorum = 0;

  /// Fills in neighbors (0 up to 50 sites, else choose_neighbors), threshold and quorum for a
  /// coordinator that may lie: 2/3 of the holders, 2/3 of the sites.
  void use_defaults();
  /// Throws ErrorKind::Config: fewer than 3 sites, ids not ascending, a key twice, threshold below
  /// 3, above the holders or not above half of them, quorum below 3, not above half of the sites or
  /// above their number.
  void check() const;
  storage::Digest digest() const;
  std::string encode() const;
  /// Throws ErrorKind::Data for anything that encode() does not write; calls check().
  static SecureRound decode(std::string_view bytes);

  const SecureSite* find(uint32_t id) const;
  size_t holders() const;  ///< of one site's secrets: neighbors + 1, or all sites
  /// The sites that share secrets with `id`, ascending, without itself. A circulant graph (Harary)
  /// over a permutation that digest() decides (Bell et al. 2020).
  std::vector<uint32_t> neighbors_of(uint32_t id) const;
  /// The same for all sites, by their position in `sites`, at once.
  std::vector<std::vector<uint32_t>> neighbor_lists() const;
};

inline constexpr size_t kMaxSecureSites = 65536;
inline constexpr size_t kMaxComplete = 1024;  ///< sites of a complete graph
inline constexpr size_t kMaxSiteName = 128;

/// ⌊2n/3⌋ + 1: with fewer than a third of liars among n, no two lists get this many signatures.
uint32_t two_thirds(size_t n);

/// The least even number of neighbors for which, with `corrupt` of the sites on the coordinator's
/// side and `dropped` of them lost, the chance that some honest site has `two_thirds` corrupt
/// holders, that the honest survivors fall apart, or that too few holders survive is below
/// 2^-security each (Bell et al. 2020, section 3; union bounds over hypergeometric tails). sites -
/// 1 (the complete graph, reported as 0) when no smaller one does.
uint32_t choose_neighbors(size_t sites, double corrupt, double dropped, int security);

}  // namespace kamerton::privacy
