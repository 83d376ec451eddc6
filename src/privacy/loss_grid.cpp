// SPDX-License-Identifier: Apache-2.0
#include "loss_grid.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "fourier.h"
#include "gaussian_tail.h"

namespace kamerton::privacy {
namespace {

constexpr double kInfinite = std::numeric_limits<double>::infinity();

/// The exact curve of one release, as delta(epsilon) for epsilon >= 0, and below 0 as
/// delta(epsilon)
/// - (1 - e^epsilon): small numbers on both sides, so that second differences keep their digits.
class Curve {
 public:
  Curve(const NoisyRelease& release, Neighbor neighbor)
      : q_(release.sampling), sigma_(release.noise), neighbor_(neighbor) {}

  double above(double epsilon) const {
    return neighbor_ == Neighbor::Removed ? removed(epsilon) : added(epsilon);
  }
  /// e^eps times the other direction's curve at -eps.
  double below(double epsilon) const {
    return neighbor_ == Neighbor::Removed ? removed_mirrored(epsilon) : added_mirrored(epsilon);
  }

  /// The loss at an outcome x of the mechanism's noise.
  double loss_at(double x) const {
    const double ratio = (2 * x - 1) / (2 * sigma_ * sigma_);
    const double loss = q_ == 1 ? ratio : log_add(std::log1p(-q_), std::log(q_) + ratio);
    return neighbor_ == Neighbor::Removed ? loss : -loss;
  }

 private:
  static double log_add(double a, double b) {
    const double high = std::max(a, b);
    return high + std::log1p(std::exp(std::min(a, b) - high));
  }
  /// ln((e^eps - 1 + q) / q): the loss without sampling that becomes eps with it; -inf below.
  double unsampled(double epsilon) const {
    if (q_ == 1) {
      return epsilon;
    }
    if (epsilon > 30) {
      return epsilon - std::log(q_) + std::log1p((q_ - 1) * std::exp(-epsilon));
    }
    const double ratio = (std::expm1(epsilon) + q_) / q_;
    return ratio > 0 ? std::log(ratio) : -kInfinite;
  }
  double removed(double epsilon) const {
    const double inner = unsampled(epsilon);
    return inner == -kInfinite ? -std::expm1(epsilon) : q_ * gaussian_delta(sigma_, inner);
  }
  double removed_mirrored(double epsilon) const {
    const double inner = unsampled(epsilon);
    return inner == -kInfinite ? 0 : q_ * gaussian_delta_mirrored(sigma_, inner);
  }
  double added(double epsilon) const {
    if (q_ == 1) {
      return gaussian_delta(sigma_, epsilon);  // both directions are alike
    }
    const double inner = unsampled(-epsilon);
    return inner == -kInfinite ? 0
                               : std::exp(epsilon) * q_ * gaussian_delta_mirrored(sigma_, inner);
  }
  double added_mirrored(double epsilon) const {
    if (q_ == 1) {
      return gaussian_delta_mirrored(sigma_, epsilon);
    }
    const double inner = unsampled(-epsilon);
    return inner == -kInfinite ? std::exp(epsilon) * -std::expm1(-epsilon)
                               : std::exp(epsilon) * q_ * gaussian_delta(sigma_, inner);
  }

  double q_;
  double sigma_;
  Neighbor neighbor_;
};

/// The z with upper_tail(z) just below `mass`.
double far_point(double mass) {
  double z = 0;
  while (upper_tail(z) > mass) {
    z += 0.25;
  }
  return z;
}

/// The loss's logarithmic moment: ln sum p e^(lambda L). From the end where the exponent is
/// largest: what underflows does not matter.
double log_moment(const LossGrid& loss, double lambda) {
  const auto last = loss.first + static_cast<int64_t>(loss.masses.size()) - 1;
  const double top = lambda * static_cast<double>(lambda > 0 ? last : loss.first) * loss.interval;
  const double shrink = std::exp(-std::abs(lambda) * loss.interval);
  double weight = 1;
  double sum = 0;
  const size_t n = loss.masses.size();
  for (size_t i = 0; i < n; ++i) {
    sum += loss.masses[lambda > 0 ? n - 1 - i : i] * weight;
    weight *= shrink;
  }
  // Where what matters has underflowed, this lambda says nothing.
  return sum > 1e-250 ? top + std::log(sum) : kInfinite;
}

/// Where the sum of losses lies but for `tail` on each side (Chernoff).
std::pair<double, double> range_of(const std::vector<RepeatedLoss>& parts, double tail) {
  double mean = 0;
  double variance = 0;
  double least = 0;
  double most = 0;
  for (const auto& [loss, count] : parts) {
    double first = 0;
    double second = 0;
    for (size_t i = 0; i < loss.masses.size(); ++i) {
      const double at = static_cast<double>(loss.first + static_cast<int64_t>(i)) * loss.interval;
      first += loss.masses[i] * at;
      second += loss.masses[i] * at * at;
    }
    const auto times = static_cast<double>(count);
    mean += times * first;
    variance += times * std::max(second - first * first, 0.0);
    least += times * static_cast<double>(loss.first) * loss.interval;
    most += times * static_cast<double>(loss.first + static_cast<int64_t>(loss.masses.size()) - 1) *
            loss.interval;
  }
  const double spread = std::max(std::sqrt(variance), parts.front().loss.interval);
  double low = least;
  double high = most;
  // Heavy tails have their best bound far below one over the spread.
  for (const double factor :
       {0.02, 0.04, 0.08, 0.15, 0.3, 0.5, 0.8, 1.2, 2.0, 3.0, 4.5, 6.0, 8.0, 11.0}) {
    const double lambda = factor / spread;
    double up = -std::log(tail);
    double down = -std::log(tail);
    for (const auto& [loss, count] : parts) {
      up += static_cast<double>(count) * log_moment(loss, lambda);
      down += static_cast<double>(count) * log_moment(loss, -lambda);
    }
    high = std::min(high, up / lambda);
    low = std::max(low, -down / lambda);
  }
  return {low, high};
}

}  // namespace

double LossGrid::delta(double epsilon) const {
  double sum = infinity;
  for (size_t i = masses.size(); i-- > 0;) {
    const double loss = static_cast<double>(first + static_cast<int64_t>(i)) * interval;
    if (loss <= epsilon) {
      break;
    }
    sum -= masses[i] * std::expm1(epsilon - loss);
  }
  return std::min(sum, 1.0);
}

double LossGrid::epsilon(double wanted) const {
  if (infinity > wanted) {
    return kInfinite;
  }
  // From the top: above = mass of larger losses, weighted = sum of p e^(this loss - loss).
  double above = infinity;
  double weighted = 0;
  double border = 0;
  const double shrink = std::exp(-interval);
  for (size_t i = masses.size(); i-- > 0;) {
    border = static_cast<double>(first + static_cast<int64_t>(i)) * interval;
    if (border < 0 || above - weighted > wanted) {
      break;  // delta(border) is too large: epsilon lies between this loss and the next one
    }
    above += masses[i];
    weighted = (weighted + masses[i]) * shrink;
  }
  if (above <= wanted || weighted <= 0) {
    return 0;
  }
  return std::max(0.0, border + std::log((above - wanted) / weighted));
}

LossGrid loss_of(const NoisyRelease& release,
                 Neighbor neighbor,
                 double interval,
                 double lost,
                 uint64_t max_points,
                 double& needed_points) {
  const Curve curve(release, neighbor);
  const double z = far_point(lost) * release.noise;
  // Outcomes of the data set that has the loss: N(0) or N(1), hence one more on either side.
  const double one = curve.loss_at(-z);
  const double other = curve.loss_at(1 + z);
  const double low = std::floor(std::min(one, other) / interval) - 1;
  const double high = std::ceil(std::max(one, other) / interval) + 1;
  LossGrid grid{.interval = interval, .first = static_cast<int64_t>(low), .masses = {}};
  needed_points = high - low + 1;
  if (!(needed_points <= static_cast<double>(max_points))) {
    return grid;
  }
  const auto last = static_cast<int64_t>(high);
  const double up = std::expm1(interval);
  const double down = -std::expm1(-interval);
  grid.masses.reserve(static_cast<size_t>(last - grid.first + 1));
  const auto at = [&](int64_t k, bool mirrored) {
    const double epsilon = static_cast<double>(k) * interval;
    return mirrored ? curve.below(epsilon) : curve.above(epsilon);
  };
  double before = 0;
  double here = at(grid.first, grid.first < 0);
  for (int64_t i = grid.first; i <= last; ++i) {
    const bool mirrored = i < 0;
    if (i == 0 && i > grid.first) {  // the other side of the curve from here on
      before = at(-1, false);
      here = at(0, false);
    }
    const double after = i == last ? 0 : at(i + 1, mirrored);
    double mass = 0;
    if (i == grid.first) {
      mass = mirrored ? (after - here * (1 + up)) / up : 1 - here + (after - here) / up;
    } else if (i == last) {
      // Below 0 the curve is mirrored + (1 - e^eps), whose own part of this difference is e^eps.
      const double power = std::exp(static_cast<double>(i) * interval);
      mass = (before - here) / down + (mirrored ? power : 0.0);
      grid.infinity = here + (mirrored ? 1 - power : 0.0);
    } else {
      mass = (after - here) / up + (before - here) / down;
    }
    grid.masses.push_back(std::max(mass, 0.0));
    before = here;
    here = after;
  }
  return grid;
}

LossGrid compose(const std::vector<RepeatedLoss>& parts,
                 double tail,
                 uint64_t max_points,
                 double& needed_points) {
  const double interval = parts.front().loss.interval;
  if (parts.size() == 1 && parts.front().count == 1) {
    return parts.front().loss;
  }
  const auto [low, high] = range_of(parts, tail);
  LossGrid sum{.interval = interval,
               .first = static_cast<int64_t>(std::floor(low / interval)),
               .masses = {}};
  const double points = std::ceil(high / interval) - std::floor(low / interval) + 1;
  needed_points = points;
  if (!(points <= static_cast<double>(max_points))) {
    return sum;
  }
  size_t size = 16;
  while (static_cast<double>(size) < points) {
    size *= 2;
  }
  // Convolution modulo `size`: what lies outside of the window (2 * tail at most) wraps into it and
  // is counted as infinite.
  std::vector<std::complex<double>> product(size, 1.0);
  double kept = 1;
  for (const auto& [loss, count] : parts) {
    std::vector<std::complex<double>> wave(size);
    const auto cycle = static_cast<int64_t>(size);
    for (size_t i = 0; i < loss.masses.size(); ++i) {
      const int64_t at = (loss.first + static_cast<int64_t>(i)) % cycle;
      wave[static_cast<size_t>(at < 0 ? at + cycle : at)] += loss.masses[i];
    }
    fourier(wave, false);
    for (size_t i = 0; i < size; ++i) {
      product[i] *= whole_power(wave[i], count);
    }
    kept *= std::exp(static_cast<double>(count) * std::log1p(-loss.infinity));
  }
  fourier(product, true);
  sum.infinity = 1 - kept + 2 * tail;
  sum.masses.resize(static_cast<size_t>(points));
  const auto cycle = static_cast<int64_t>(size);
  for (size_t i = 0; i < sum.masses.size(); ++i) {
    const int64_t at = (sum.first + static_cast<int64_t>(i)) % cycle;
    sum.masses[i] = std::max(product[static_cast<size_t>(at < 0 ? at + cycle : at)].real(), 0.0);
  }
  return sum;
}

}  // namespace kamerton::privacy
