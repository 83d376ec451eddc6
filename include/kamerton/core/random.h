// SPDX-License-Identifier: Apache-2.0
// Random numbers as a pure function of a key and a counter: no state to save, the same on any
// number of ranks.
#pragma once

#include <cstdint>
#include <string_view>

namespace kamerton::core {

/// A stream of random numbers keyed by (seed, purpose, a, b). Philox4x32-10 (Salmon et al., SC'11).
/// `at(i)` may be called in any order and from any thread.
class RandomStream {
 public:
  RandomStream(uint64_t seed, std::string_view purpose, uint64_t a = 0, uint64_t b = 0);

  /// 64 random bits of counter i.
  uint64_t bits(uint64_t i) const;
  /// Uniform in [0, 1), 53 bits.
  double uniform(uint64_t i) const;
  /// Uniform integer in [0, bound), without bias worth the name (128-bit multiply). bound > 0.
  uint64_t below(uint64_t i, uint64_t bound) const;
  /// Standard normal (Box-Muller over the two halves of counter i).
  double normal(uint64_t i) const;

 private:
  uint64_t key_;
  uint64_t lane_;
};

/// A permutation of [0, size) computed one element at a time in O(1) memory: a Feistel network with
/// cycle walking. position -> element, a bijection for every key.
class Permutation {
 public:
  Permutation(uint64_t size, uint64_t seed, std::string_view purpose, uint64_t epoch);
  uint64_t operator()(uint64_t position) const;

 private:
  uint64_t size_;
  uint32_t half_bits_;
  uint64_t keys_[6];
};

}  // namespace kamerton::core
