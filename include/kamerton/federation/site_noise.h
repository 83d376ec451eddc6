// SPDX-License-Identifier: Apache-2.0
// Noise that hides whole sites: how a run's configuration becomes integers, noise and epsilon. The
// same at all sites and at the coordinator.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kamerton/federation/config.h"
#include "kamerton/privacy/secret.h"
#include "kamerton/privacy/site_privacy.h"

namespace kamerton::federation {

/// Whether sites add noise (federation.privacy.site_noise).
bool hides_sites(const FederationConfig& config);

/// Steps, noise of the sum and share of a site for an update of so many elements; room for
/// cohort.size + cohort.extra sites, noise enough with cohort.min_sites of them. Throws
/// ErrorKind::Config when they do not fit into the ring. Pure.
privacy::SitePrivacyPlan site_noise_plan(const FederationConfig& config, int64_t elements);

/// What a site leaves of its update of this 2-norm: 1, or less than clip / norm by so little that
/// no rounding of the products brings it above the clip; 0 for a norm that is not finite.
double site_clip_factor(double norm, double clip);

/// Adds the site's share to the integers of block number `block`: a function of the key.
void hide_block(const privacy::SitePrivacyPlan& plan,
                const privacy::Secret& key,
                int64_t block,
                std::span<std::byte> words);

/// Epsilon, at federation.privacy.site_delta, of a site that took part in so many rounds: to those
/// who see the models, and to whoever sees its own (unmasked) updates.
struct SiteEpsilon {
  double models = 0;
  double updates = 0;
};
SiteEpsilon site_epsilon(const FederationConfig& config, int64_t rounds);

}  // namespace kamerton::federation
