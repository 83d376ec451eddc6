// SPDX-License-Identifier: Apache-2.0
#include "kamerton/privacy/shamir.h"

#include <algorithm>
#include <array>

#include <sodium.h>

#include "faults.h"

namespace kamerton::privacy {
namespace {

constexpr char kShamirWhere[] = "privacy.shamir";
static_assert(crypto_core_ed25519_SCALARBYTES == Secret::kBytes);

Secret scalar_of(uint32_t value) {
  Secret scalar;
  for (int i = 0; i < 4; ++i) {
    scalar.data()[i] = static_cast<uint8_t>(value >> (8 * i));
  }
  return scalar;
}

Secret multiply(const Secret& a, const Secret& b) {
  Secret product;
  crypto_core_ed25519_scalar_mul(product.data(), a.data(), b.data());
  return product;
}

Secret add(const Secret& a, const Secret& b) {
  Secret sum;
  crypto_core_ed25519_scalar_add(sum.data(), a.data(), b.data());
  return sum;
}

Secret subtract(const Secret& a, const Secret& b) {
  Secret difference;
  crypto_core_ed25519_scalar_sub(difference.data(), a.data(), b.data());
  return difference;
}

void check_points(std::span<const uint32_t> points) {
  std::vector<uint32_t> sorted(points.begin(), points.end());
  std::sort(sorted.begin(), sorted.end());
  const bool twice = std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end();
  if (sorted.empty() || sorted.front() == 0 || twice) {
    bad_data(kShamirWhere, "the points of shares must be distinct and above 0");
  }
}

}  // namespace

Secret random_scalar(RandomSource& random) {
  // 64 bytes reduced modulo the order: the excess of small values is below 2^-256.
  start_sodium();
  std::array<uint8_t, crypto_core_ed25519_NONREDUCEDSCALARBYTES> wide;
  random.fill(wide);
  Secret scalar;
  crypto_core_ed25519_scalar_reduce(scalar.data(), wide.data());
  wipe(wide.data(), wide.size());
  return scalar;
}

bool is_scalar(const Secret& value) {
  start_sodium();
  std::array<uint8_t, crypto_core_ed25519_NONREDUCEDSCALARBYTES> wide = {};
  std::copy(value.bytes().begin(), value.bytes().end(), wide.begin());
  Secret reduced;
  crypto_core_ed25519_scalar_reduce(reduced.data(), wide.data());
  wipe(wide.data(), wide.size());
  return reduced.equals(value);
}

std::vector<Share> split(const Secret& secret,
                         std::span<const uint32_t> points,
                         uint32_t threshold,
                         RandomSource& random) {
  check_points(points);
  if (threshold < 1 || threshold > points.size() || !is_scalar(secret)) {
    throw core::Error(core::ErrorKind::Internal,
                      {.where = kShamirWhere, .what = "a secret cannot be split so"});
  }
  std::vector<Secret> coefficients = {secret};
  for (uint32_t i = 1; i < threshold; ++i) {
    coefficients.push_back(random_scalar(random));
  }
  std::vector<Share> shares;
  shares.reserve(points.size());
  for (const uint32_t x : points) {
    const Secret at = scalar_of(x);
    Secret y = coefficients.back();
    for (size_t i = coefficients.size() - 1; i > 0; --i) {
      y = add(multiply(y, at), coefficients[i - 1]);
    }
    shares.push_back({x, y});
  }
  return shares;
}

std::vector<Secret> lagrange_at_zero(std::span<const uint32_t> points) {
  start_sodium();
  check_points(points);
  const size_t n = points.size();
  std::vector<Secret> above(n, scalar_of(1));
  std::vector<Secret> below(n, scalar_of(1));
  for (size_t i = 0; i < n; ++i) {  // prod_j x_j / (x_j - x_i)
    const Secret own = scalar_of(points[i]);
    for (size_t j = 0; j < n; ++j) {
      if (j != i) {
        const Secret other = scalar_of(points[j]);
        above[i] = multiply(above[i], other);
        below[i] = multiply(below[i], subtract(other, own));
      }
    }
  }
  // One inversion for all: an inversion costs as much as 280 products.
  std::vector<Secret> before(n + 1, scalar_of(1));
  for (size_t i = 0; i < n; ++i) {
    before[i + 1] = multiply(before[i], below[i]);
  }
  Secret inverse;
  library_check(crypto_core_ed25519_scalar_invert(inverse.data(), before[n].data()) == 0,
                "crypto_core_ed25519_scalar_invert");
  for (size_t i = n; i-- > 0;) {
    above[i] = multiply(above[i], multiply(inverse, before[i]));
    inverse = multiply(inverse, below[i]);
  }
  return above;
}

Secret combine(std::span<const Share> shares, std::span<const Secret> weights) {
  start_sodium();
  Secret sum;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (!is_scalar(shares[i].y)) {
      bad_data(kShamirWhere, "a share is not below the order of the field");
    }
    sum = add(sum, multiply(shares[i].y, weights[i]));
  }
  return sum;
}

Secret combine(std::span<const Share> shares, uint32_t threshold) {
  if (threshold < 1 || shares.size() < threshold) {
    bad_data(kShamirWhere,
             "too few shares",
             std::to_string(shares.size()),
             "at least " + std::to_string(threshold));
  }
  std::vector<uint32_t> points;
  for (const Share& share : shares.first(threshold)) {
    points.push_back(share.x);
  }
  return combine(shares, lagrange_at_zero(points));
}

}  // namespace kamerton::privacy
