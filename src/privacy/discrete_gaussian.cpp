// SPDX-License-Identifier: Apache-2.0
// Algorithms 1, 2 and 3 of Canonne, Kamath and Steinke, arXiv 2004.00010, section 5.
#include "kamerton/privacy/discrete_gaussian.h"

#include <cmath>

#include "faults.h"

namespace kamerton::privacy {
namespace {

constexpr char kDiscreteGaussianWhere[] = "privacy.discrete_gaussian";
using Wide = unsigned __int128;
constexpr uint64_t kDenominator = 1024;

Wide wide_below(RandomSource& random, Wide bound) {
  if (bound <= UINT64_MAX) {
    return random.below(static_cast<uint64_t>(bound));
  }
  const Wide uneven = (0 - bound) % bound;
  for (;;) {
    const Wide value = (static_cast<Wide>(random.bits64()) << 64) | random.bits64();
    if (value >= uneven) {
      return value % bound;
    }
  }
}

/// true with probability exp(-above / below), above <= below.
bool decays_within_one(RandomSource& random, Wide above, Wide below) {
  Wide k = 1;
  while (wide_below(random, below * k) < above) {
    ++k;
  }
  return k % 2 == 1;
}

bool decays(RandomSource& random, Wide above, Wide below) {
  for (Wide whole = above / below; whole > 0; --whole) {
    if (!decays_within_one(random, 1, 1)) {
      return false;
    }
  }
  return decays_within_one(random, above % below, below);
}

/// P(k) proportional to exp(-|k| / scale).
int64_t discrete_laplace(RandomSource& random, uint64_t scale) {
  for (;;) {
    const uint64_t low = random.below(scale);
    if (!decays_within_one(random, low, scale)) {
      continue;
    }
    uint64_t high = 0;
    while (decays_within_one(random, 1, 1)) {
      ++high;
    }
    // 2^12 heads in a row at e^-1 each: never; the bound keeps the products below 2^128.
    if (high > 4096) {
      continue;
    }
    const auto size = static_cast<int64_t>(low + scale * high);
    const bool negative = random.below(2) == 1;
    if (!negative || size != 0) {
      return negative ? -size : size;
    }
  }
}

uint64_t root_of(uint64_t numerator, uint64_t denominator) {
  auto root = static_cast<uint64_t>(
      std::sqrt(static_cast<double>(numerator) / static_cast<double>(denominator)));
  while (static_cast<Wide>(root) * root * denominator > numerator) {
    --root;
  }
  while (static_cast<Wide>(root + 1) * (root + 1) * denominator <= numerator) {
    ++root;
  }
  return root;
}

}  // namespace

DiscreteGaussian::DiscreteGaussian(uint64_t numerator, uint64_t denominator)
    : numerator_(numerator), denominator_(denominator), scale_(0) {
  constexpr uint64_t kMost = uint64_t{1} << 50;
  if (numerator == 0 || denominator == 0 || numerator > kMost || denominator > kDenominator ||
      numerator / denominator > (uint64_t{1} << 40)) {
    bad_choice(kDiscreteGaussianWhere,
               "the variance is out of range",
               std::to_string(numerator) + " / " + std::to_string(denominator),
               "above 0, up to 2^40, in steps of at least 1/1024");
  }
  scale_ = root_of(numerator, denominator) + 1;
}

DiscreteGaussian DiscreteGaussian::at_least(double sigma) {
  const double wanted = std::ceil(sigma * sigma * static_cast<double>(kDenominator));
  if (!(wanted >= 1) || !(sigma <= std::ldexp(1.0, 20))) {
    bad_choice(kDiscreteGaussianWhere,
               "noise must lie above 0 and at most at 2^20 steps",
               std::to_string(sigma));
  }
  return {static_cast<uint64_t>(wanted), kDenominator};
}

int64_t DiscreteGaussian::operator()(RandomSource& random) const {
  for (;;) {
    const int64_t value = discrete_laplace(random, scale_);
    // exp(-(|y| - s^2/t)^2 / (2 s^2)) with s^2 = n/d: exp(-(|y| t d - n)^2 / (2 n t^2 d)).
    const Wide size = static_cast<Wide>(value < 0 ? -value : value) * scale_ * denominator_;
    const Wide gap = size > numerator_ ? size - numerator_ : numerator_ - size;
    const Wide below = static_cast<Wide>(2) * numerator_ * scale_ * scale_ * denominator_;
    if (decays(random, gap * gap, below)) {
      return value;
    }
  }
}

double DiscreteGaussian::sigma() const {
  return std::sqrt(static_cast<double>(numerator_) / static_cast<double>(denominator_));
}

DiscreteGaussian noise_of_a_site(double sigma, uint64_t min_survivors) {
  const double own = sigma / std::sqrt(static_cast<double>(min_survivors));
  if (!(own >= 8) || min_survivors == 0) {
    bad_choice(kDiscreteGaussianWhere,
               "a site's share of the noise must be at least 8 steps of the ring: below, a sum of "
               "discrete Gaussians is not as good as one",
               std::to_string(own),
               {},
               "more levels, or a smaller clipping bound of the ring");
  }
  return DiscreteGaussian::at_least(own);
}

template <class Word>
void add_noise(std::span<Word> words, const DiscreteGaussian& noise, RandomSource& random) {
  KeyedRandom fast(random.secret());  // one system call instead of millions
  for (Word& word : words) {
    word = static_cast<Word>(word + static_cast<Word>(noise(fast)));
  }
}

template void add_noise(std::span<uint32_t>, const DiscreteGaussian&, RandomSource&);
template void add_noise(std::span<uint64_t>, const DiscreteGaussian&, RandomSource&);

}  // namespace kamerton::privacy
