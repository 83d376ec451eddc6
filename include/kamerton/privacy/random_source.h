// SPDX-License-Identifier: Apache-2.0
// Cryptographic random bytes behind a seam: the system's in the product, a known stream in tests.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "kamerton/privacy/secret.h"

namespace kamerton::privacy {

class RandomSource {
 public:
  virtual ~RandomSource() = default;
  virtual void fill(std::span<uint8_t> bytes) = 0;

  uint64_t bits64();
  /// Uniform in [0, bound), exactly (rejection); bound > 0.
  uint64_t below(uint64_t bound);
  Secret secret();
};

/// The operating system's generator. Thread-safe.
RandomSource& system_random();

/// A stream of ChaCha20 (RFC 8439's cipher in its original form: 64-bit nonce, 64-bit counter)
/// under a key: the same key and lane give the same bytes everywhere, from any position.
class KeyedRandom final : public RandomSource {
 public:
  explicit KeyedRandom(const Secret& key, uint64_t lane = 0);
  ~KeyedRandom() override { wipe(ahead_.data(), ahead_.size()); }
  void fill(std::span<uint8_t> bytes) override;
  /// The next byte that fill() gives is the stream's byte number `position`.
  void seek(uint64_t position) noexcept { position_ = position; }

 private:
  Secret key_;
  uint64_t lane_;
  uint64_t position_ = 0;
  static constexpr size_t kAhead = 1024;
  std::array<uint8_t, kAhead> ahead_ = {};  ///< stream bytes from ahead_from_ on
  uint64_t ahead_from_ = ~uint64_t{0};      ///< a multiple of kAhead, or none
};

}  // namespace kamerton::privacy
