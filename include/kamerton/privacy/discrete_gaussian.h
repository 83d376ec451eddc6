// SPDX-License-Identifier: Apache-2.0
// Noise without rounding errors: integers, drawn exactly with integer arithmetic alone.
#pragma once

#include <cstdint>
#include <span>

#include "kamerton/privacy/random_source.h"

namespace kamerton::privacy {

/// Draws of P(k) proportional to exp(-k^2 / (2 sigma^2)) with sigma^2 = numerator / denominator
/// (Canonne, Kamath, Steinke 2004.00010, algorithms 1 to 3). No floating point takes part.
class DiscreteGaussian {
 public:
  /// sigma^2 at most 2^40, denominator at most 1024; throws ErrorKind::Config otherwise.
  DiscreteGaussian(uint64_t numerator, uint64_t denominator);
  /// The least such ratio with denominator 2^10 that is not below sigma^2.
  static DiscreteGaussian at_least(double sigma);

  int64_t operator()(RandomSource& random) const;
  double sigma() const;

 private:
  uint64_t numerator_;
  uint64_t denominator_;
  uint64_t scale_;  ///< floor(sigma) + 1
};

/// A site's share of the noise that the sum of at least `min_survivors` sites must carry: sigma /
/// sqrt(min_survivors), rounded up. With more survivors the sum carries more. Throws
/// ErrorKind::Config below 8 steps a site, where a sum of discrete Gaussians is no longer as good
/// as one (Kairouz et al. 2102.06387, theorem 1: the excess is below exp(-600) for 8).
DiscreteGaussian noise_of_a_site(double sigma, uint64_t min_survivors);

/// words[i] += noise in the ring.
template <class Word>
void add_noise(std::span<Word> words, const DiscreteGaussian& noise, RandomSource& random);

}  // namespace kamerton::privacy
