// SPDX-License-Identifier: Apache-2.0
#include "kamerton/privacy/random_source.h"

#include <algorithm>
#include <array>
#include <cstring>

#include <sodium.h>

#include "chacha.h"
#include "faults.h"

namespace kamerton::privacy {
namespace {

class SystemRandom final : public RandomSource {
 public:
  SystemRandom() { start_sodium(); }
  void fill(std::span<uint8_t> bytes) override { randombytes_buf(bytes.data(), bytes.size()); }
};

}  // namespace

uint64_t RandomSource::bits64() {
  std::array<uint8_t, 8> bytes;
  fill(bytes);
  uint64_t value = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    value |= static_cast<uint64_t>(bytes[i]) << (8 * i);
  }
  return value;
}

uint64_t RandomSource::below(uint64_t bound) {
  // Values under 2^64 mod bound would make the small remainders more likely.
  const uint64_t uneven = (0 - bound) % bound;
  for (;;) {
    const uint64_t value = bits64();
    if (value >= uneven) {
      return value % bound;
    }
  }
}

Secret RandomSource::secret() {
  Secret result;
  fill({result.data(), Secret::kBytes});
  return result;
}

RandomSource& system_random() {
  static SystemRandom instance;  // without state of its own
  return instance;
}

KeyedRandom::KeyedRandom(const Secret& key, uint64_t lane) : key_(key), lane_(lane) {
  start_sodium();
}

void KeyedRandom::fill(std::span<uint8_t> bytes) {
  static_assert(kAhead % kChachaBlock == 0);
  size_t done = 0;
  while (done < bytes.size()) {
    const uint64_t from = position_ / kAhead * kAhead;
    if (from != ahead_from_) {
      chacha_stream(key_, lane_, from / kChachaBlock, ahead_);
      ahead_from_ = from;
    }
    const size_t skip = position_ - from;
    const size_t piece = std::min(bytes.size() - done, kAhead - skip);
    std::memcpy(bytes.data() + done, ahead_.data() + skip, piece);
    done += piece;
    position_ += piece;
  }
}

}  // namespace kamerton::privacy
