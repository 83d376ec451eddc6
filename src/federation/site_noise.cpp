// SPDX-License-Identifier: Apache-2.0
#include "kamerton/federation/site_noise.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "kamerton/privacy/accountant.h"
#include "kamerton/privacy/random_source.h"

namespace kamerton::federation {

bool hides_sites(const FederationConfig& config) {
  return config.privacy.site_noise > 0;
}

privacy::SitePrivacyPlan site_noise_plan(const FederationConfig& config, int64_t elements) {
  return privacy::plan_site_privacy(
      {.clip = config.privacy.site_clip,
       .noise = config.privacy.site_noise,
       .sites = static_cast<uint64_t>(config.cohort.size + config.cohort.extra),
       .min_survivors = static_cast<uint64_t>(config.cohort.min_sites),
       .elements = static_cast<uint64_t>(elements)});
}

double site_clip_factor(double norm, double clip) {
  const double factor = privacy::clip_factor(norm, clip);
  return factor < 1 ? factor * (1 - 0x1p-20) : factor;  // products are rounded to 24 bits
}

void hide_block(const privacy::SitePrivacyPlan& plan,
                const privacy::Secret& key,
                int64_t block,
                std::span<std::byte> words) {
  privacy::KeyedRandom random(key, static_cast<uint64_t>(block));
  std::vector<uint32_t> values(words.size() / 4);
  std::memcpy(values.data(), words.data(), words.size());
  privacy::add_noise(std::span<uint32_t>(values), plan.share, random);
  std::memcpy(words.data(), values.data(), words.size());
}

SiteEpsilon site_epsilon(const FederationConfig& config, int64_t rounds) {
  const auto of = [&](double noise) {
    privacy::PrivacyAccountant accountant;
    accountant.add({.noise = noise, .count = static_cast<uint64_t>(rounds)});
    return accountant.epsilon(config.privacy.site_delta);
  };
  if (rounds == 0) {
    return {};
  }
  const double share = std::sqrt(static_cast<double>(config.cohort.min_sites));
  return {of(config.privacy.site_noise), of(config.privacy.site_noise / share)};
}

}  // namespace kamerton::federation
