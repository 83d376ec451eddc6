// SPDX-License-Identifier: Apache-2.0
#include "kamerton/core/random.h"

#include <bit>
#include <cmath>
#include <numbers>
#include <string>

#include "kamerton/core/error.h"

#include "philox.h"

namespace kamerton::core {
namespace {

/// FNV-1a, 64 bits: names a purpose. Part of what a seed means: never change it.
uint64_t hash_name(std::string_view name) {
  uint64_t hash = 0xCBF29CE484222325;
  for (const char c : name) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3;
  }
  return hash;
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood, OOPSLA'14): a cheap bijection that mixes all
/// bits.
uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

double to_unit(uint64_t bits) {
  return static_cast<double>(bits >> 11) * 0x1.0p-53;
}

}  // namespace

RandomStream::RandomStream(uint64_t seed, std::string_view purpose, uint64_t a, uint64_t b)
    : key_(low_half(philox4x32(hash_name(purpose), purpose.size(), seed))),
      lane_(low_half(philox4x32(a, b, key_))) {}

uint64_t RandomStream::bits(uint64_t i) const {
  return low_half(philox4x32(i, lane_, key_));
}

double RandomStream::uniform(uint64_t i) const {
  return to_unit(bits(i));
}

uint64_t RandomStream::below(uint64_t i, uint64_t bound) const {
  if (bound == 0) {
    throw Error(ErrorKind::Internal,
                {.where = "core.random", .what = "a random integer below 0 does not exist"});
  }
  return static_cast<uint64_t>((static_cast<unsigned __int128>(bits(i)) * bound) >> 64);
}

double RandomStream::normal(uint64_t i) const {
  const PhiloxBlock block = philox4x32(i, lane_, key_);
  const double radius_draw = 1.0 - to_unit(low_half(block));  // (0, 1]: the logarithm is finite
  const double angle = 2.0 * std::numbers::pi * to_unit(high_half(block));
  return std::sqrt(-2.0 * std::log(radius_draw)) * std::cos(angle);
}

Permutation::Permutation(uint64_t size, uint64_t seed, std::string_view purpose, uint64_t epoch)
    : size_(size), half_bits_(1) {
  // The smallest even number of bits that holds size - 1: fewer than four elements of the domain
  // for each of ours.
  const int needed = size <= 1 ? 1 : static_cast<int>(std::bit_width(size - 1));
  half_bits_ = static_cast<uint32_t>((needed + 1) / 2);
  const RandomStream stream(seed, purpose, epoch);
  for (uint64_t i = 0; i < std::size(keys_); ++i) {
    keys_[i] = stream.bits(i);
  }
}

uint64_t Permutation::operator()(uint64_t position) const {
  if (position >= size_) {
    throw Error(ErrorKind::Internal,
                {.where = "core.random",
                 .what = "a position lies outside the permutation",
                 .got = std::to_string(position),
                 .allowed = "less than " + std::to_string(size_)});
  }
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  uint64_t value = position;
  do {  // walk the cycle until it is back inside: still a bijection of [0, size)
    uint64_t left = value >> half_bits_;
    uint64_t right = value & mask;
    for (const uint64_t key : keys_) {
      const uint64_t next = left ^ (mix(right + key) & mask);
      left = right;
      right = next;
    }
    value = left << half_bits_ | right;
  } while (value >= size_);
  return value;
}

}  // namespace kamerton::core
