// SPDX-License-Identifier: Apache-2.0
#include "kamerton/privacy/accountant.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "faults.h"
#include "gaussian_tail.h"
#include "loss_grid.h"

namespace kamerton::privacy {
namespace {

constexpr char kAccountantWhere[] = "privacy.accountant";

void check_delta(double delta) {
  if (!(delta > 0) || !(delta < 1)) {
    bad_choice(kAccountantWhere, "delta must lie between 0 and 1", std::to_string(delta));
  }
}

/// All releases, those without sampling folded into one Gaussian.
struct Merged {
  double gaussian = 0;  ///< noise of the one; 0: none
  std::vector<NoisyRelease> sampled;
};

Merged merge(const std::vector<NoisyRelease>& releases) {
  Merged merged;
  double precision = 0;
  for (const NoisyRelease& release : releases) {
    if (release.sampling == 1) {
      precision += static_cast<double>(release.count) / (release.noise * release.noise);
      continue;
    }
    const auto same =
        std::find_if(merged.sampled.begin(), merged.sampled.end(), [&](const NoisyRelease& known) {
          return known.noise == release.noise && known.sampling == release.sampling;
        });
    if (same != merged.sampled.end()) {
      same->count += release.count;
    } else if (release.count > 0) {
      merged.sampled.push_back(release);
    }
  }
  merged.gaussian = precision > 0 ? 1 / std::sqrt(precision) : 0;
  return merged;
}

/// One direction, on the finest grid that fits.
LossGrid total_loss(const Merged& merged, Neighbor neighbor, const LossOptions& options) {
  std::vector<NoisyRelease> parts = merged.sampled;
  if (merged.gaussian > 0) {
    parts.push_back({.noise = merged.gaussian});
  }
  uint64_t releases = 0;
  for (const NoisyRelease& part : parts) {
    releases += part.count;
  }
  const double lost = options.tail / static_cast<double>(std::max<uint64_t>(releases, 1));
  double interval = options.interval;
  for (int attempt = 0; attempt < 100 && std::isfinite(interval); ++attempt) {
    double needed = 0;
    std::vector<RepeatedLoss> losses;
    for (const NoisyRelease& part : parts) {
      losses.push_back(
          {loss_of(part, neighbor, interval, lost, options.max_grid, needed), part.count});
      if (losses.back().loss.masses.empty()) {
        break;
      }
    }
    if (!losses.back().loss.masses.empty()) {
      LossGrid sum = compose(losses, options.tail, options.max_grid, needed);
      if (!sum.masses.empty()) {
        return sum;
      }
    }
    interval *=
        std::exp2(std::ceil(std::log2(needed / static_cast<double>(options.max_grid)) + 1e-9));
  }
  return LossGrid{.interval = 1, .masses = {}, .infinity = 1};
}

/// Bisection for the epsilon of one Gaussian.
double gaussian_epsilon(double sigma, double delta) {
  if (gaussian_delta(sigma, 0) <= delta) {
    return 0;
  }
  double low = 0;
  double high = 1;
  while (gaussian_delta(sigma, high) > delta) {
    low = high;
    high *= 2;
    if (high > 1e9) {
      return std::numeric_limits<double>::infinity();
    }
  }
  for (int i = 0; i < 80; ++i) {
    const double middle = (low + high) / 2;
    (gaussian_delta(sigma, middle) > delta ? low : high) = middle;
  }
  return high;
}

}  // namespace

void PrivacyAccountant::add(const NoisyRelease& release) {
  check(release);
  if (release.count > 0) {
    releases_.push_back(release);
  }
}

double PrivacyAccountant::epsilon(double delta) const {
  check_delta(delta);
  const Merged merged = merge(releases_);
  if (merged.sampled.empty()) {
    return merged.gaussian > 0 ? gaussian_epsilon(merged.gaussian, delta) : 0;
  }
  return std::max(total_loss(merged, Neighbor::Removed, options_).epsilon(delta),
                  total_loss(merged, Neighbor::Added, options_).epsilon(delta));
}

double PrivacyAccountant::delta(double epsilon) const {
  const Merged merged = merge(releases_);
  if (merged.sampled.empty()) {
    return merged.gaussian > 0 ? gaussian_delta(merged.gaussian, epsilon) : 0;
  }
  return std::max(total_loss(merged, Neighbor::Removed, options_).delta(epsilon),
                  total_loss(merged, Neighbor::Added, options_).delta(epsilon));
}

namespace {

constexpr double kMostNoise = 1e4;

/// Noise with which the Rényi bound keeps to (epsilon, delta), to 1e-3; kMostNoise when none does.
double renyi_noise(double epsilon,
                   double delta,
                   double sampling,
                   uint64_t count,
                   std::span<const NoisyRelease> spent) {
  std::vector<NoisyRelease> all(spent.begin(), spent.end());
  all.push_back({});
  const auto within = [&](double noise) {
    all.back() = {.noise = noise, .sampling = sampling, .count = count};
    return renyi_epsilon(all, delta) <= epsilon;
  };
  double high = 1;
  while (!within(high)) {
    high *= 2;
    if (high > kMostNoise) {
      return kMostNoise;
    }
  }
  double low = high / 2;
  while (low > 1e-3 && within(low)) {
    high = low;
    low /= 2;
  }
  while (high / low > 1.001) {
    const double middle = std::sqrt(low * high);
    (within(middle) ? high : low) = middle;
  }
  return high;
}

}  // namespace

double calibrate_noise(double epsilon,
                       double delta,
                       double sampling,
                       uint64_t count,
                       std::span<const NoisyRelease> spent,
                       const LossOptions& options) {
  check_delta(delta);
  if (!(epsilon > 0)) {
    bad_choice(kAccountantWhere, "epsilon must be above 0", std::to_string(epsilon));
  }
  const auto within = [&](double noise) {
    PrivacyAccountant accountant(options);
    for (const NoisyRelease& release : spent) {
      accountant.add(release);
    }
    accountant.add({.noise = noise, .sampling = sampling, .count = count});
    return accountant.epsilon(delta) <= epsilon;
  };
  // A bracket by Rényi divergences, which are quick and never below: noise enough for them is
  // enough.
  double high = renyi_noise(epsilon, delta, sampling, count, spent);
  while (!within(high)) {  // the grid's own cost, where epsilon is tiny
    if (high >= kMostNoise) {
      bad_choice(kAccountantWhere,
                 "no noise is enough for epsilon " + std::to_string(epsilon) +
                     ": what was spent before leaves nothing");
    }
    high = std::min(high * 1.1, kMostNoise);
  }
  double low = high / 1.5;
  while (low > 1e-3 && within(low)) {
    high = low;
    low /= 1.5;
  }
  while (high / low > 1.0001) {
    const double middle = std::sqrt(low * high);
    (within(middle) ? high : low) = middle;
  }
  return high;
}

double discrete_gaussian_delta(double sigma, uint64_t step, double epsilon) {
  check({.noise = sigma});
  const auto shift = static_cast<double>(step);
  const double border = (shift * shift - 2 * sigma * sigma * epsilon) / (2 * shift);
  const auto reach = static_cast<int64_t>(std::ceil(40 * sigma));
  const auto weight = [&](double x) { return std::exp(-x * x / (2 * sigma * sigma)); };
  double all = 0;
  double sum = 0;
  for (int64_t k = -reach; k <= reach; ++k) {
    const auto x = static_cast<double>(k);
    all += weight(x);
    if (x < border) {  // where the loss is above epsilon
      sum += weight(x) - std::exp(epsilon) * weight(x - shift);
    }
  }
  return std::max(sum / all, 0.0);
}

}  // namespace kamerton::privacy
