// SPDX-License-Identifier: Apache-2.0
// Random bits of a token and a feature: fast enough for every element of an activation.
#pragma once

#include <cstdint>

namespace kamerton::tuning {

/// splitmix64's finaliser: every bit of the key reaches every bit of the result.
inline uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}
/// Distance of neighbouring keys.
inline constexpr uint64_t kMixStride = 0x9E3779B97F4A7C15ULL;

}  // namespace kamerton::tuning
