// SPDX-License-Identifier: Apache-2.0
// Privacy of whole sites: each clips its update and adds its part of the noise, so that the sum,
// which is all that the coordinator sees, carries it in full.
#pragma once

#include <cstdint>
#include <span>

#include "kamerton/privacy/accountant.h"
#include "kamerton/privacy/discrete_gaussian.h"
#include "kamerton/privacy/ring.h"

namespace kamerton::privacy {

struct SitePrivacyConfig {
  double clip = 1.0;           ///< 2-norm S of a site's update, at most
  double noise = 1.0;          ///< z: the sum's noise is z times its sensitivity
  uint64_t sites = 3;          ///< added at most
  uint64_t min_survivors = 3;  ///< the noise is enough when only these are left
  uint64_t elements = 0;       ///< of the update
  int bits = 32;               ///< of the ring
};

/// How a site encodes, and what a round costs. A pure function of the configuration: all sites and
/// the coordinator find the same.
struct SitePrivacyPlan {
  RingCodec codec;         ///< clip S: no element of an update that is clipped to S is larger
  double sensitivity;      ///< 2-norm in steps, rounding included
  double sigma;            ///< of the sum's noise, in steps, with min_survivors
  DiscreteGaussian share;  ///< what one site adds
  NoisyRelease release;    ///< what a round costs a site; sampling 1: none is claimed
};

/// The finest steps that leave room for sum and noise (10 deviations with all sites). Throws
/// ErrorKind::Config when the noise would be below 8 steps a site, or no step fits.
SitePrivacyPlan plan_site_privacy(const SitePrivacyConfig& config);

/// The factor min(1, clip / norm) for an update of this 2-norm (over all its shards); 0 for one
/// that is not finite: it adds noise only.
double clip_factor(double norm, double clip);

}  // namespace kamerton::privacy
