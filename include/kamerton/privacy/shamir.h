// SPDX-License-Identifier: Apache-2.0
// A secret in n pieces of which any t give it back and t - 1 say nothing (Shamir 1979), over the
// prime field of the Ed25519 scalars (libsodium's constant-time arithmetic).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kamerton/privacy/random_source.h"

namespace kamerton::privacy {

struct Share {
  uint32_t x = 0;  ///< the holder's point, from 1
  Secret y;
};

/// A scalar below the group's order, uniform.
Secret random_scalar(RandomSource& random);
/// Whether 32 little-endian bytes are below the order.
bool is_scalar(const Secret& value);

/// One share for each point. points: from 1, distinct. 1 <= threshold <= points.size(). secret: a
/// scalar. Throws ErrorKind::Internal otherwise.
std::vector<Share> split(const Secret& secret,
                         std::span<const uint32_t> points,
                         uint32_t threshold,
                         RandomSource& random);

/// The secret, from any `threshold` or more shares at distinct points (the first `threshold` are
/// used). Throws ErrorKind::Data with too few shares, a point twice, or a value that is no scalar.
/// A wrong share gives a wrong secret: callers check the result against what was published.
Secret combine(std::span<const Share> shares, uint32_t threshold);

/// The factors with which shares at these points add up to the secret, in their order: the same for
/// every secret that the same holders give back.
std::vector<Secret> lagrange_at_zero(std::span<const uint32_t> points);
/// The sum of weights.size() shares, each times its factor.
Secret combine(std::span<const Share> shares, std::span<const Secret> weights);

}  // namespace kamerton::privacy
