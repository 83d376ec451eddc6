// SPDX-License-Identifier: Apache-2.0
#include "kamerton/privacy/ring.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "faults.h"

namespace kamerton::privacy {
namespace {

constexpr char kRingWhere[] = "privacy.ring";

/// Random bits in large helpings: a call to the source for each element would cost more than all
/// else.
class Dice {
 public:
  explicit Dice(RandomSource& source) : source_(source) {}
  /// Uniform in [0, 1), 53 bits.
  double next() {
    if (used_ == kHelping) {
      source_.fill({reinterpret_cast<uint8_t*>(bits_), sizeof(bits_)});
      used_ = 0;
    }
    return static_cast<double>(bits_[used_++] >> 11) * 0x1p-53;
  }

 private:
  static constexpr size_t kHelping = 512;
  RandomSource& source_;
  uint64_t bits_[kHelping];
  size_t used_ = kHelping;
};

template <class Word>
void check_width(int bits) {
  if (bits != static_cast<int>(8 * sizeof(Word))) {
    throw core::Error(core::ErrorKind::Internal,
                      {.where = kRingWhere,
                       .what = "the words are not as wide as the ring",
                       .got = std::to_string(8 * sizeof(Word)),
                       .allowed = std::to_string(bits)});
  }
}

}  // namespace

RingCodec::RingCodec(const RingConfig& config) : config_(config) {
  if (config.bits != 32 && config.bits != 64) {
    bad_choice(
        kRingWhere, "a ring has 2^32 or 2^64 elements", std::to_string(config.bits) + " bits");
  }
  if (!(config.clip > 0) || !std::isfinite(config.clip)) {
    bad_choice(
        kRingWhere, "the clipping bound must be above 0 and finite", std::to_string(config.clip));
  }
  if (config.terms == 0 || !(config.noise_bound >= 0)) {
    bad_choice(kRingWhere, "a sum has at least one term, and noise a bound of at least 0");
  }
  // A double holds whole numbers exactly up to 2^53: more levels would not be reached.
  const double room = std::min(std::ldexp(1.0, config.bits - 1) - config.noise_bound - 1, 0x1p62);
  const double most = std::min(std::floor(room / static_cast<double>(config.terms)) * 2, 0x1p53);
  if (config.levels < 2 || config.levels % 2 != 0 || static_cast<double>(config.levels) > most) {
    bad_choice(kRingWhere,
               "the sum of " + std::to_string(config.terms) +
                   " terms must not wrap in a ring of 2^" + std::to_string(config.bits),
               std::to_string(config.levels) + " levels",
               most < 2 ? "none: too many terms or too much noise"
                        : "an even number up to " + std::to_string(static_cast<uint64_t>(most)),
               "fewer levels, or a ring of 2^64");
  }
  step_ = 2 * config.clip / static_cast<double>(config.levels);
}

template <class Real>
double RingCodec::scaled(Real value, uint64_t index, RingReport& report) const {
  const auto wide = static_cast<double>(value);
  if (!std::isfinite(wide)) {
    throw core::Error(core::ErrorKind::Numeric,
                      {.where = kRingWhere,
                       .what = "element " + std::to_string(index) + " is not a finite number",
                       .got = std::to_string(wide),
                       .hint = "leave this update out"});
  }
  report.clipped += std::abs(wide) > config_.clip ? 1 : 0;
  return std::clamp(wide, -config_.clip, config_.clip) / step_;
}

template <class Real, class Word>
RingReport RingCodec::encode(std::span<const Real> values, std::span<Word> words) const {
  check_width<Word>(config_.bits);
  RingReport report;
  const auto most = static_cast<int64_t>(config_.levels / 2);
  for (size_t i = 0; i < values.size(); ++i) {
    const auto level = static_cast<int64_t>(std::nearbyint(scaled(values[i], i, report)));
    words[i] = static_cast<Word>(std::clamp(level, -most, most));
  }
  return report;
}

template <class Real, class Word>
RingReport RingCodec::encode(std::span<const Real> values,
                             std::span<Word> words,
                             RandomSource& source) const {
  check_width<Word>(config_.bits);
  RingReport report;
  Dice dice(source);
  const auto most = static_cast<int64_t>(config_.levels / 2);
  for (size_t i = 0; i < values.size(); ++i) {
    const double exact = scaled(values[i], i, report);
    const double down = std::floor(exact);
    const auto level = static_cast<int64_t>(down) + (dice.next() < exact - down ? 1 : 0);
    words[i] = static_cast<Word>(std::clamp(level, -most, most));
  }
  return report;
}

template <class Word, class Real>
void RingCodec::decode(std::span<const Word> sums, std::span<Real> values, double factor) const {
  check_width<Word>(config_.bits);
  using Signed = std::make_signed_t<Word>;
  for (size_t i = 0; i < sums.size(); ++i) {
    values[i] =
        static_cast<Real>(static_cast<double>(static_cast<Signed>(sums[i])) * step_ * factor);
  }
}

double RingCodec::sensitivity(double norm, uint64_t elements, bool random_rounding) const {
  const double rounding = std::sqrt(static_cast<double>(elements)) * (random_rounding ? 1.0 : 0.5);
  return norm / step_ + rounding;
}

template <class Word>
void ring_add(std::span<Word> a, std::span<const Word> b) {
  for (size_t i = 0; i < a.size(); ++i) {
    a[i] = static_cast<Word>(a[i] + b[i]);
  }
}

template void ring_add(std::span<uint32_t>, std::span<const uint32_t>);
template void ring_add(std::span<uint64_t>, std::span<const uint64_t>);

#define KAMERTON_RING(Real, Word)                                                              \
  template RingReport RingCodec::encode(std::span<const Real>, std::span<Word>) const;         \
  template RingReport RingCodec::encode(std::span<const Real>, std::span<Word>, RandomSource&) \
      const;                                                                                   \
  template void RingCodec::decode(std::span<const Word>, std::span<Real>, double) const;
KAMERTON_RING(float, uint32_t)
KAMERTON_RING(float, uint64_t)
KAMERTON_RING(double, uint32_t)
KAMERTON_RING(double, uint64_t)
#undef KAMERTON_RING

}  // namespace kamerton::privacy
