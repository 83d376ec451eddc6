// SPDX-License-Identifier: Apache-2.0
#include "kamerton/privacy/normal_stream.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <numbers>

#include "kamerton/privacy/keys.h"
#include "kamerton/privacy/wire.h"

#include "chacha.h"

namespace kamerton::privacy {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr size_t kWords = 4;  ///< of 64 bits, an element
constexpr size_t kPiece = 512;

/// In (0, 1], 53 bits: its logarithm exists.
double positive_uniform(uint64_t bits) {
  return (static_cast<double>(bits >> 11) + 1) * 0x1p-53;
}

/// Both Box-Muller values of two words, added: r (cos a + sin a).
double normal_pair(uint64_t radius_bits, uint64_t angle_bits) {
  const double radius = std::sqrt(-2 * std::log(positive_uniform(radius_bits)));
  const double angle = 2 * std::numbers::pi * positive_uniform(angle_bits);
  return radius * (std::cos(angle) + std::sin(angle));
}

}  // namespace

NormalStream::NormalStream(const Secret& key,
                           std::string_view purpose,
                           uint64_t step,
                           std::string_view name) {
  WireWriter context;
  context.u64(step);
  context.text(name);
  key_ = derive(key, purpose, context.bytes());
}

void NormalStream::add(uint64_t first, double scale, std::span<float> values) const {
  std::array<uint64_t, kPiece * kWords> words;
  static_assert(kChachaBlock == 2 * kWords * sizeof(uint64_t));  // two elements a block
  for (size_t done = 0; done < values.size();) {
    const uint64_t at = first + done;
    const size_t skip = at % 2;
    const size_t piece = std::min(values.size() - done, kPiece - skip);
    chacha_stream(
        key_,
        0,
        at / 2,
        {reinterpret_cast<uint8_t*>(words.data()), (skip + piece) * kWords * sizeof(uint64_t)});
    for (size_t i = 0; i < piece; ++i) {
      const uint64_t* own = words.data() + (skip + i) * kWords;
      const double normal = 0.5 * (normal_pair(own[0], own[1]) + normal_pair(own[2], own[3]));
      values[done + i] = static_cast<float>(static_cast<double>(values[done + i]) + scale * normal);
    }
    done += piece;
  }
  wipe(words.data(), sizeof(words));
}

}  // namespace kamerton::privacy
