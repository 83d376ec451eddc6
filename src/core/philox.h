// SPDX-License-Identifier: Apache-2.0
// Philox4x32-10: a keyed bijection of 128-bit counters (Salmon et al., "Parallel random numbers: as
// easy as 1, 2, 3", SC'11). Private, so that the tests can compare it with the published vectors.
#pragma once

#include <array>
#include <cstdint>

namespace kamerton::core {

using PhiloxBlock = std::array<uint32_t, 4>;
using PhiloxKey = std::array<uint32_t, 2>;

inline PhiloxBlock philox4x32(PhiloxBlock counter, PhiloxKey key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t left = uint64_t{0xD2511F53} * counter[0];
    const uint64_t right = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(right >> 32) ^ counter[1] ^ key[0],
               static_cast<uint32_t>(right),
               static_cast<uint32_t>(left >> 32) ^ counter[3] ^ key[1],
               static_cast<uint32_t>(left)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

/// The block of the 128-bit counter (low, high) under a 64-bit key.
inline PhiloxBlock philox4x32(uint64_t low, uint64_t high, uint64_t key) {
  return philox4x32(PhiloxBlock{static_cast<uint32_t>(low),
                                static_cast<uint32_t>(low >> 32),
                                static_cast<uint32_t>(high),
                                static_cast<uint32_t>(high >> 32)},
                    PhiloxKey{static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)});
}

inline uint64_t low_half(const PhiloxBlock& block) {
  return uint64_t{block[1]} << 32 | block[0];
}

inline uint64_t high_half(const PhiloxBlock& block) {
  return uint64_t{block[3]} << 32 | block[2];
}

}  // namespace kamerton::core
