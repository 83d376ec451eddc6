// SPDX-License-Identifier: Apache-2.0
#include "site_privacy.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/config/load.h"
#include "kamerton/core/log.h"
#include "kamerton/federation/fault_point.h"
#include "kamerton/privacy/budget_ledger.h"
#include "kamerton/privacy/keys.h"
#include "kamerton/privacy/noise_key.h"
#include "kamerton/privacy/secure_round.h"
#include "kamerton/storage/digest.h"

#include "on_first_rank.h"

namespace kamerton::cli {
namespace {

namespace fs = std::filesystem;

constexpr char kWhole[] = "whole-site";  ///< in place of a data set's name

double least(double budget, double limit) {
  return limit > 0 ? std::min(budget, limit) : budget;
}

/// The run's settings at this site: its name, and the smaller budget.
privacy::RecordPrivacyConfig at_site(privacy::RecordPrivacyConfig config, const PrivateSite& site) {
  config.site = site.name;
  if (config.epsilon.has_value()) {
    config.epsilon = least(*config.epsilon, site.limits.record_epsilon);
  }
  config.delta = std::min(config.delta, site.limits.delta);
  return config;
}

/// Another configuration, data set, file or number of ranks is another release.
std::string fingerprint(const RunConfig& config, const PrivateSite& site, int ranks) {
  const std::string all = fmt::format("{}|{}|{}|{}|{}|{}",
                                      config::dump(config),
                                      site.name,
                                      site.data_digest,
                                      site.steps,
                                      site.elements,
                                      ranks);
  return storage::to_hex(storage::digest_of(all)).substr(0, 16);
}

std::string tag_of(const std::string& text) {
  return storage::to_hex(storage::digest_of(text)).substr(0, 12);
}

/// What the ledger refuses is no error of the run: the site stays out.
void charging(const std::function<void()>& charge) {
  federation::fault_point("site.charging");
  try {
    charge();
  } catch (const core::Error& error) {
    if (error.kind() != core::ErrorKind::Permission) {
      throw;
    }
    throw Declined(error.kind(), std::string(error.what()));
  }
  federation::fault_point("site.charged");
}

}  // namespace

void require_survivors(const std::string& secure_round,
                       const federation::FederationConfig& config) {
  if (!federation::hides_sites(config)) {
    return;
  }
  const uint32_t quorum = privacy::SecureRound::decode(secure_round).quorum;
  if (quorum < config.cohort.min_sites) {
    throw core::Error(core::ErrorKind::Permission,
                      {.where = "cli.site_privacy",
                       .what = "the coordinator would unmask a sum with too little noise",
                       .got = fmt::format("{} sites", quorum),
                       .allowed = fmt::format("cohort.min_sites {}", config.cohort.min_sites)});
  }
}

SitePrivacy::SitePrivacy(const RunConfig& config, const PrivateSite& site, const comm::Group& ranks)
    : config_(config),
      site_(site),
      ranks_(ranks),
      record_config_(at_site(config.privacy, site)),
      run_(config.name + ":" + fingerprint(config, site, ranks.size())) {
  if (federation::hides_sites(config.federation)) {
    plan_ = federation::site_noise_plan(config.federation, site.elements);
    core::log_info(
        fmt::format("{} is hidden as a whole: noise {:g} times clip {:g} in a sum of {} "
                    "sites, budget epsilon {:g}",
                    site.name,
                    config.federation.privacy.site_noise,
                    config.federation.privacy.site_clip,
                    config.federation.cohort.min_sites,
                    least(config.federation.privacy.site_epsilon, site.limits.site_epsilon)));
  }
  if (record_config_.enabled()) {
    records_.emplace(record_config_,
                     train::PrivateRun{.name = config.name,
                                       .fingerprint = fingerprint(config, site, ranks.size()),
                                       .records = site.records,
                                       .batch_rows = config.data.batch_rows,
                                       .total_steps = site.steps * config.federation.rounds,
                                       .rounds = config.federation.rounds},
                     ranks);
    core::log_info(fmt::format("{}: {}", site.name, records_->text()));
  }
}

void SitePrivacy::note(
    const char* unit, const std::string& data_set, double noise, double after, double most) {
  spent_.push_back({{"round", round_},
                    {"unit", unit},
                    {"data_set", data_set},
                    {"noise", noise},
                    {"epsilon_after", after},
                    {"budget", most}});
  core::log_info(fmt::format("{}, round {}: epsilon {:.4f} of {:g} is spent of {}",
                             site_.name,
                             round_,
                             after,
                             most,
                             data_set));
}

void SitePrivacy::begin_round(const RoundStart& start) {
  round_ = start.round;
  spent_ = core::Json::array();
  if (!records_.has_value()) {
    return;
  }
  const std::string binding = start.model + "|" + start.state;
  double after = 0;
  charging([&] {
    after = records_->begin_round(
        {fmt::format("round {}, {}", start.round, tag_of(binding)), binding}, ranks_);
  });
  note("record", record_config_.data_set, records_->noise(), after, *record_config_.epsilon);
}

std::string SitePrivacy::site_ledger() const {
  return (fs::path(record_config_.folder) / (site_.name + "." + kWhole + ".jsonl")).string();
}

void SitePrivacy::charge_update(const std::string& plain_digest) {
  if (!plan_.has_value()) {
    return;
  }
  const federation::FederationConfig& federation = config_.federation;
  const double budget = least(federation.privacy.site_epsilon, site_.limits.site_epsilon);
  const double delta = std::min(federation.privacy.site_delta, site_.limits.delta);
  // Without masks the update itself is seen, which carries the site's own share alone.
  const double noise = federation.privacy.secure_aggregation
                           ? federation.privacy.site_noise
                           : federation.privacy.site_noise /
                                 std::sqrt(static_cast<double>(federation.cohort.min_sites));
  double after = 0;
  privacy::Secret key;
  charging([&] {
    on_first_rank(ranks_, [&] {
      const privacy::Secret run =
          privacy::derive(privacy::noise_key(record_config_.folder), "site run", run_);
      key = privacy::derive(run, "update", fmt::format("{}|{}", round_, plain_digest));
      const privacy::Secret tag = privacy::derive(key, "tag", "");
      auto ledger = privacy::BudgetLedger::open(site_ledger(), site_.name, kWhole, {budget, delta});
      after = ledger
                  .reserve(run_,
                           fmt::format("round {}, {}",
                                       round_,
                                       tag_of(std::string(tag.bytes().begin(), tag.bytes().end()))),
                           {.noise = noise})
                  .epsilon_after;
    });
  });
  const std::string bytes =
      ranks_.broadcast(std::string(key.bytes().begin(), key.bytes().end()), 0);
  std::copy(bytes.begin(), bytes.end(), site_key_.data());
  note("site", kWhole, noise, after, budget);
}

void SitePrivacy::hide(int64_t block, std::span<std::byte> words) const {
  if (plan_.has_value()) {
    federation::hide_block(*plan_, site_key_, block, words);
  }
}

double SitePrivacy::clip_factor(double norm) const {
  const double clip = config_.federation.privacy.site_clip;
  return clip > 0 ? federation::site_clip_factor(norm, clip) : 1.0;
}

void SitePrivacy::conceal(federation::Submission& submission) const {
  const federation::FederationConfig& federation = config_.federation;
  const bool noisy = hides_records() || hides_site();
  if (noisy || (federation.privacy.secure_aggregation && federation::weighs_integers(federation))) {
    submission.targets = 0;
    submission.examples = 0;
  }
  if (!noisy) {
    return;
  }
  submission.train_loss = 0;
  for (const core::Json& item : spent_) {
    if (item["unit"] == "record") {
      submission.epsilon = item["epsilon_after"].get<double>();
    }
  }
}

}  // namespace kamerton::cli
