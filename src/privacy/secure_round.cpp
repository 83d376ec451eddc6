// SPDX-License-Identifier: Apache-2.0
#include "kamerton/privacy/secure_round.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "kamerton/privacy/wire.h"

#include "faults.h"

namespace kamerton::privacy {
namespace {

constexpr char kSecureRoundWhere[] = "privacy.secure_round";
constexpr uint16_t kSecureRoundKind = 1;
constexpr uint16_t kSecureRoundVersion = 1;
constexpr size_t kCompleteUpTo = 50;

/// Positions on the ring that the graph is laid on, decided by the round's digest.
std::vector<uint32_t> ring_order(size_t n, const storage::Digest& digest) {
  KeyedRandom random(derive(Secret(std::span<const uint8_t, 32>(digest)), "graph", ""));
  std::vector<uint32_t> order(n);
  std::iota(order.begin(), order.end(), 0u);
  for (size_t i = n; i > 1; --i) {
    std::swap(order[i - 1], order[random.below(i)]);
  }
  return order;
}

}  // namespace

uint32_t two_thirds(size_t n) {
  return static_cast<uint32_t>(2 * n / 3 + 1);
}

void SecureRound::use_defaults() {
  neighbors = sites.size() <= kCompleteUpTo ? 0 : choose_neighbors(sites.size(), 0.05, 0.05, 40);
  threshold = two_thirds(holders());
  quorum = two_thirds(sites.size());
}

size_t SecureRound::holders() const {
  return neighbors == 0 ? sites.size() : neighbors + 1;
}

void SecureRound::check() const {
  const std::string number = std::to_string(sites.size());
  if (sites.size() < 3 || sites.size() > kMaxSecureSites) {
    bad_choice(kSecureRoundWhere,
               "with fewer than 3 sites each learns the other's update from the sum",
               number + " sites",
               "3 to " + std::to_string(kMaxSecureSites));
  }
  std::set<PublicKey> keys;
  for (size_t i = 0; i < sites.size(); ++i) {
    if (i > 0 && sites[i].id <= sites[i - 1].id) {
      bad_choice(kSecureRoundWhere,
                 "the sites of a round must be in ascending order of their numbers, each once");
    }
    if (!keys.insert(sites[i].identity).second || sites[i].name.size() > kMaxSiteName) {
      bad_choice(kSecureRoundWhere,
                 "two sites have one key, or a name is too long",
                 "'" + sites[i].name + "'");
    }
  }
  if (neighbors % 2 != 0 || neighbors + 1 > sites.size()) {
    bad_choice(kSecureRoundWhere,
               "the number of neighbors must be even and below the number of sites",
               std::to_string(neighbors));
  }
  if (neighbors == 0 && sites.size() > kMaxComplete) {
    bad_choice(kSecureRoundWhere,
               "so many sites cannot all exchange masks with each other",
               number + " sites",
               "at most " + std::to_string(kMaxComplete),
               "a number of neighbors");
  }
  const size_t group = holders();
  if (threshold < 3 || threshold > group || 2 * threshold <= group) {
    bad_choice(kSecureRoundWhere,
               "the threshold must be at least 3, more than half of a site's " +
                   std::to_string(group) + " share holders, and not above them",
               std::to_string(threshold),
               std::to_string(two_thirds(group)) + " against a coordinator that lies");
  }
  if (quorum < 3 || quorum > sites.size() || 2 * size_t{quorum} <= sites.size()) {
    bad_choice(kSecureRoundWhere,
               "the quorum must be at least 3 and more than half of the sites",
               std::to_string(quorum),
               std::to_string(two_thirds(sites.size())) + " of " + number);
  }
}

storage::Digest SecureRound::digest() const {
  return storage::digest_of("kamerton secure round" + encode());
}

std::string SecureRound::encode() const {
  WireWriter writer(kSecureRoundKind, kSecureRoundVersion);
  writer.raw(run);
  writer.u64(round);
  writer.raw(model);
  writer.u32(neighbors);
  writer.u32(threshold);
  writer.u32(quorum);
  writer.u32(static_cast<uint32_t>(sites.size()));
  for (const SecureSite& site : sites) {
    writer.u32(site.id);
    writer.text(site.name);
    writer.raw(site.identity);
  }
  return writer.take();
}

SecureRound SecureRound::decode(std::string_view bytes) {
  WireReader reader(bytes, kSecureRoundKind, kSecureRoundVersion, "a round of secure aggregation");
  SecureRound round;
  reader.raw(round.run);
  round.round = reader.u64();
  reader.raw(round.model);
  round.neighbors = reader.u32();
  round.threshold = reader.u32();
  round.quorum = reader.u32();
  round.sites.resize(reader.count(kMaxSecureSites, 4 + 4 + sizeof(PublicKey)));
  for (SecureSite& site : round.sites) {
    site.id = reader.u32();
    site.name = reader.text(kMaxSiteName);
    reader.raw(site.identity);
  }
  reader.finish();
  try {
    round.check();
  } catch (const core::Error& error) {
    reader.refuse(error.what());
  }
  return round;
}

const SecureSite* SecureRound::find(uint32_t id) const {
  const auto at =
      std::lower_bound(sites.begin(), sites.end(), id, [](const SecureSite& s, uint32_t want) {
        return s.id < want;
      });
  return at != sites.end() && at->id == id ? &*at : nullptr;
}

std::vector<uint32_t> SecureRound::neighbors_of(uint32_t id) const {
  const SecureSite* site = find(id);
  return site == nullptr ? std::vector<uint32_t>()
                         : neighbor_lists()[static_cast<size_t>(site - sites.data())];
}

std::vector<std::vector<uint32_t>> SecureRound::neighbor_lists() const {
  const size_t n = sites.size();
  std::vector<std::vector<uint32_t>> lists(n);
  if (neighbors == 0) {
    for (size_t i = 0; i < n; ++i) {
      for (size_t j = 0; j < n; ++j) {
        if (j != i) {
          lists[i].push_back(sites[j].id);
        }
      }
    }
    return lists;
  }
  const std::vector<uint32_t> order = ring_order(n, digest());
  for (size_t at = 0; at < n; ++at) {
    std::vector<uint32_t>& list = lists[order[at]];
    for (size_t step = 1; step <= neighbors / 2; ++step) {
      list.push_back(sites[order[(at + step) % n]].id);
      list.push_back(sites[order[(at + n - step) % n]].id);
    }
    std::sort(list.begin(), list.end());
  }
  return lists;
}

}  // namespace kamerton::privacy
