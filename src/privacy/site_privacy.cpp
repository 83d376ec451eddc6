// SPDX-License-Identifier: Apache-2.0
#include "kamerton/privacy/site_privacy.h"

#include <algorithm>
#include <cmath>

#include "faults.h"

namespace kamerton::privacy {
namespace {

constexpr char kSitePrivacyWhere[] = "privacy.site_privacy";
/// Deviations of noise for which the ring has room: beyond, with chance 2e-23 an element.
constexpr double kRoom = 10;
/// Elements of a site's noise are drawn exactly up to here.
constexpr double kMostSigma = 1 << 20;

/// Of the sum's noise for so many levels.
double sigma_of(const SitePrivacyConfig& config, uint64_t levels) {
  const double step = 2 * config.clip / static_cast<double>(levels);
  const double rounding = std::sqrt(static_cast<double>(config.elements)) / 2;
  return config.noise * (config.clip / step + rounding);
}

/// What noise of all sites adds to an element of the sum, at most.
double noise_bound(const SitePrivacyConfig& config, uint64_t levels) {
  const double excess =
      std::sqrt(static_cast<double>(config.sites) / static_cast<double>(config.min_survivors));
  return std::ceil(kRoom * excess * sigma_of(config, levels));
}

bool fits(const SitePrivacyConfig& config, uint64_t levels) {
  const double sum = static_cast<double>(config.sites) * static_cast<double>(levels) / 2 +
                     noise_bound(config, levels) + 1;
  const double share =
      sigma_of(config, levels) / std::sqrt(static_cast<double>(config.min_survivors));
  return sum < std::ldexp(1.0, config.bits - 1) && share <= kMostSigma;
}

}  // namespace

SitePrivacyPlan plan_site_privacy(const SitePrivacyConfig& config) {
  const bool sound = config.clip > 0 && std::isfinite(config.clip) && config.noise > 0 &&
                     std::isfinite(config.noise) && config.elements > 0 &&
                     config.min_survivors > 0 && config.min_survivors <= config.sites &&
                     (config.bits == 32 || config.bits == 64);
  if (!sound) {
    bad_choice(
        kSitePrivacyWhere,
        "clip and noise must be above 0, survivors between 1 and the sites, elements above 0, "
        "the ring of 32 or 64 bits");
  }
  uint64_t levels = uint64_t{1} << 40;
  while (levels >= 2 && !fits(config, levels)) {
    levels /= 2;
  }
  if (levels < 2) {
    bad_choice(kSitePrivacyWhere,
               "sum and noise do not fit into a ring of 2^" + std::to_string(config.bits),
               std::to_string(config.sites) + " sites, noise " + std::to_string(config.noise),
               {},
               "a ring of 2^64, or fewer elements");
  }
  const RingCodec codec({.bits = config.bits,
                         .clip = config.clip,
                         .levels = levels,
                         .terms = config.sites,
                         .noise_bound = noise_bound(config, levels)});
  const double sigma = sigma_of(config, levels);
  return {.codec = codec,
          .sensitivity = codec.sensitivity(config.clip, config.elements, false),
          .sigma = sigma,
          .share = noise_of_a_site(sigma, config.min_survivors),
          .release = {.noise = config.noise}};
}

double clip_factor(double norm, double clip) {
  if (!std::isfinite(norm)) {
    return 0;
  }
  return norm <= clip ? 1.0 : clip / norm;
}

}  // namespace kamerton::privacy
