// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kamerton/privacy/accountant.h"

#include "faults.h"
#include "gaussian_tail.h"
#include "log_choose.h"

namespace kamerton::privacy {
namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

double log_add(double a, double b) {
  const double high = std::max(a, b);
  return high == kMinusInfinity ? high : high + std::log1p(std::exp(std::min(a, b) - high));
}

/// ln(e^a - e^b), a >= b.
double log_subtract(double a, double b) {
  return b == kMinusInfinity ? a : a + std::log(-std::expm1(b - a));
}

/// ln E_Q[(P/Q)^alpha], whole alpha: the binomial sum (1908.10530, section 3.3).
double log_moment_whole(double q, double sigma, int alpha) {
  double sum = kMinusInfinity;
  for (int i = 0; i <= alpha; ++i) {
    sum = log_add(sum,
                  log_choose(alpha, i) + i * std::log(q) + (alpha - i) * std::log1p(-q) +
                      (static_cast<double>(i) * i - i) / (2 * sigma * sigma));
  }
  return sum;
}

/// A series with terms of both signs, in logarithms.
struct SignedSum {
  double positive = kMinusInfinity;
  double negative = kMinusInfinity;
  void add(double log_term, bool plus) {
    double& side = plus ? positive : negative;
    side = log_add(side, log_term);
  }
  double log() const { return log_subtract(positive, negative); }
};

/// Fractional alpha: two infinite series, cut where both densities meet (same section).
double log_moment_fractional(double q, double sigma, double alpha) {
  const double meet = sigma * sigma * std::log(1 / q - 1) + 0.5;
  const double spread = std::sqrt(2.0) * sigma;
  SignedSum sum;
  double log_binomial = 0;  // ln |C(alpha, i)|, its sign beside it
  bool plus = true;
  for (int i = 0; i < 100000; ++i) {
    const double j = alpha - i;
    const double low = log_binomial + i * std::log(q) + j * std::log1p(-q) +
                       (static_cast<double>(i) * i - i) / (2 * sigma * sigma) + std::log(0.5) +
                       log_erfc((i - meet) / spread);
    const double high = log_binomial + j * std::log(q) + i * std::log1p(-q) +
                        (j * j - j) / (2 * sigma * sigma) + std::log(0.5) +
                        log_erfc((meet - j) / spread);
    sum.add(low, plus);
    sum.add(high, plus);
    if (std::max(low, high) < sum.positive - 45 && i > alpha) {
      break;
    }
    log_binomial += std::log(std::abs(j)) - std::log(i + 1.0);
    plus = j >= 0 ? plus : !plus;
  }
  return sum.log();
}

std::vector<double> orders() {
  std::vector<double> list;
  for (int i = 1; i < 100; ++i) {
    list.push_back(1 + i / 10.0);
  }
  for (int i = 11; i < 64; ++i) {
    list.push_back(i);
  }
  for (const int i : {80, 96, 128, 192, 256, 384, 512, 1024}) {
    list.push_back(i);
  }
  return list;
}

}  // namespace

void check(const NoisyRelease& release) {
  if (!(release.noise > 0) || !std::isfinite(release.noise)) {
    bad_choice(
        "privacy.accountant", "noise must be above 0 and finite", std::to_string(release.noise));
  }
  if (!(release.sampling > 0) || release.sampling > 1) {
    bad_choice("privacy.accountant",
               "the sampling probability must be above 0 and at most 1",
               std::to_string(release.sampling));
  }
}

double renyi_divergence(const NoisyRelease& one, double alpha) {
  check(one);
  const double sigma = one.noise;
  if (one.sampling == 1) {
    return alpha / (2 * sigma * sigma);
  }
  const bool whole = alpha == std::floor(alpha) && alpha < 1e6;
  const double log_moment = whole ? log_moment_whole(one.sampling, sigma, static_cast<int>(alpha))
                                  : log_moment_fractional(one.sampling, sigma, alpha);
  return log_moment / (alpha - 1);
}

double epsilon_of_renyi(std::span<const double> at,
                        std::span<const double> divergences,
                        double delta) {
  double best = std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < at.size(); ++i) {
    const double alpha = at[i];
    const double epsilon = divergences[i] + std::log((alpha - 1) / alpha) -
                           (std::log(delta) + std::log(alpha)) / (alpha - 1);
    if (!std::isnan(epsilon)) {
      best = std::min(best, std::max(epsilon, 0.0));
    }
  }
  return best;
}

double renyi_epsilon(std::span<const NoisyRelease> releases, double delta) {
  if (releases.empty()) {
    return 0;
  }
  const std::vector<double> at = orders();
  std::vector<double> sums(at.size());
  for (const NoisyRelease& release : releases) {
    for (size_t i = 0; i < at.size(); ++i) {
      sums[i] += static_cast<double>(release.count) * renyi_divergence(release, at[i]);
    }
  }
  return epsilon_of_renyi(at, sums, delta);
}

}  // namespace kamerton::privacy
