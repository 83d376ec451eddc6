// SPDX-License-Identifier: Apache-2.0
#include "gaussian_tail.h"

#include <cmath>
#include <numbers>

namespace kamerton::privacy {
namespace {

/// From here on differences of tails are taken between Mills' ratios.
constexpr double kFar = 5.0;

double density(double z) {
  return std::exp(-z * z / 2) / std::sqrt(2 * std::numbers::pi);
}

}  // namespace

double upper_tail(double z) {
  return 0.5 * std::erfc(z / std::numbers::sqrt2);
}

double mills_ratio(double z) {
  if (z < kFar) {
    return upper_tail(z) / density(z);
  }
  double rest = z;                              // z + 1/(z + 2/(z + 3/...)), backwards
  for (int k = z < 10 ? 30 : 15; k > 0; --k) {  // the error is below e^(-2 z sqrt(2 k))
    rest = z + k / rest;
  }
  return 1 / rest;
}

double log_erfc(double x) {
  if (x < kFar) {
    return std::log(std::erfc(x));
  }
  const double z = x * std::numbers::sqrt2;
  return -x * x + std::log(mills_ratio(z) * std::sqrt(2 / std::numbers::pi));
}

double gaussian_delta(double sigma, double epsilon) {
  const double z = epsilon * sigma - 0.5 / sigma;
  if (z >= kFar) {
    return density(z) * (mills_ratio(z) - mills_ratio(z + 1 / sigma));
  }
  // e^eps density(z + 1 / sigma) = density(z): far out the factors would overflow and underflow.
  const double further = z + 1 / sigma;
  const double second =
      further >= kFar ? density(z) * mills_ratio(further) : std::exp(epsilon) * upper_tail(further);
  return std::fmax(0.0, upper_tail(z) - second);
}

double gaussian_delta_mirrored(double sigma, double epsilon) {
  const double z = -epsilon * sigma - 0.5 / sigma;
  if (z >= kFar) {
    // e^eps density(z) = density(z + 1 / sigma).
    return density(z + 1 / sigma) * (mills_ratio(z) - mills_ratio(z + 1 / sigma));
  }
  return std::fmax(0.0, std::exp(epsilon) * upper_tail(z) - upper_tail(z + 1 / sigma));
}

}  // namespace kamerton::privacy
