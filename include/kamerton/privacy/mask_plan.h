// SPDX-License-Identifier: Apache-2.0
// Which pseudo-random streams are added to (or taken from) a vector in the ring, for any piece of
// it: a site's ranks mask their own shards, the coordinator unmasks chunk by chunk.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kamerton/privacy/secret.h"

namespace kamerton::privacy {

/// Terms are ChaCha20 streams under 256-bit keys: element i of lane l is word i of the stream with
/// nonce l. A lane names one vector of the round (the update, the metrics): the same element of the
/// same lane must never mask two different values.
class MaskPlan {
 public:
  struct Term {
    Secret seed;
    bool add = true;  ///< false: subtract
  };

  void add(const Secret& seed) { terms_.push_back({seed, true}); }
  void subtract(const Secret& seed) { terms_.push_back({seed, false}); }
  const std::vector<Term>& terms() const noexcept { return terms_; }

  /// values[i] +-= word (first + i) of every term's stream. Any cut of a vector into pieces gives
  /// the same bits. Thread-safe. Memory: 64 KiB.
  void apply(std::span<uint32_t> values, uint64_t first, uint64_t lane = 0) const;
  void apply(std::span<uint64_t> values, uint64_t first, uint64_t lane = 0) const;

  /// For the ranks of one site, or the workers of one coordinator: holds secrets.
  std::string encode() const;
  static MaskPlan decode(std::string_view bytes);

 private:
  std::vector<Term> terms_;
};

}  // namespace kamerton::privacy
