// SPDX-License-Identifier: Apache-2.0
// Real numbers as integers modulo 2^32 or 2^64: sums wrap, do not depend on the order of the terms,
// and hide behind masks.
#pragma once

#include <cstdint>
#include <span>

#include "kamerton/privacy/random_source.h"

namespace kamerton::privacy {

/// x in [-clip, clip] becomes the integer nearest to x * levels / (2 clip), in [-levels/2,
/// levels/2], two's complement in the ring. A sum of `terms` encodings is exact when terms * levels
/// < 2^bits, which the constructor checks.
struct RingConfig {
  int bits = 32;                        ///< 32 or 64
  double clip = 8.0;                    ///< larger values are cut to it (and counted)
  uint64_t levels = uint64_t{1} << 22;  ///< even; the step is 2 clip / levels
  uint64_t terms = 3;                   ///< how many encodings are added at most
  double noise_bound =
      0.0;  ///< integers: what noise may add to the sum, in absolute value, at most
};

struct RingReport {
  uint64_t clipped = 0;  ///< elements that were cut
};

class RingCodec {
 public:
  /// Throws ErrorKind::Config when the sum could wrap (says the largest `levels` that fits), levels
  /// is odd or 0, clip is not positive, bits is neither 32 nor 64.
  explicit RingCodec(const RingConfig& config);

  const RingConfig& config() const noexcept { return config_; }
  double step() const noexcept { return step_; }

  /// Rounds to nearest (ties to even): deterministic. Throws ErrorKind::Numeric at an element that
  /// is not finite. Word: uint32_t with bits = 32, uint64_t with bits = 64.
  template <class Real, class Word>
  RingReport encode(std::span<const Real> values, std::span<Word> words) const;
  /// Rounds up with probability equal to the fraction: without bias.
  template <class Real, class Word>
  RingReport encode(std::span<const Real> values, std::span<Word> words, RandomSource& dice) const;
  /// The real value of a sum of encodings, times `factor` (1 / number of sites for a mean).
  template <class Word, class Real>
  void decode(std::span<const Word> sums, std::span<Real> values, double factor = 1.0) const;

  /// The 2-norm of an encoding of `elements` numbers whose own 2-norm is at most `norm`, in steps:
  /// norm / step + sqrt(elements) / 2, or + sqrt(elements) with random rounding. What differential
  /// privacy calls the sensitivity.
  double sensitivity(double norm, uint64_t elements, bool random_rounding) const;

 private:
  template <class Real>
  double scaled(Real value, uint64_t index, RingReport& report) const;
  RingConfig config_;
  double step_;
};

/// a[i] += b[i] in the ring.
template <class Word>
void ring_add(std::span<Word> a, std::span<const Word> b);

}  // namespace kamerton::privacy
