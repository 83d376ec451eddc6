// SPDX-License-Identifier: Apache-2.0
// What a site's rounds cost of its privacy: of its records (DP-SGD while it trains) and of itself
// as a whole (noise on its update). Noise is a function of a secret and of all that a result
// depends on, and the ledger knows every such result: a round that is tried again repeats both.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "kamerton/comm/group.h"
#include "kamerton/core/error.h"
#include "kamerton/core/json.h"
#include "kamerton/federation/site_noise.h"
#include "kamerton/federation/submission.h"
#include "kamerton/train/record_privacy.h"

#include "run_config.h"

namespace kamerton::cli {

/// The site's budget does not allow the round. The same on all of its ranks.
class Declined : public core::Error {
 public:
  using core::Error::Error;
};

/// What the site's policy sets; 0: the run's own budget holds.
struct PrivacyLimits {
  double record_epsilon = 0;
  double site_epsilon = 0;
  double delta = 0.5;
};

/// What the accounting needs to know of a site.
struct PrivateSite {
  std::string name;
  int64_t records = 0;
  std::string data_digest;
  int64_t steps = 0;     ///< of a round
  int64_t elements = 0;  ///< of an update
  PrivacyLimits limits = {};
};

/// A try at a round.
struct RoundStart {
  int64_t round = 0;
  std::string model;  ///< digest of what arrived
  std::string state;  ///< digest of what the site kept from its rounds before
};

/// Where sites are hidden: refuses a masked round whose sum could be revealed with fewer sites than
/// carry the noise. Throws ErrorKind::Permission.
void require_survivors(const std::string& secure_round, const federation::FederationConfig& config);

class SitePrivacy {
 public:
  /// Opens what is needed: ledgers of the site in privacy.folder. Errors as train::RecordPrivacy.
  /// Collective.
  SitePrivacy(const RunConfig& config, const PrivateSite& site, const comm::Group& ranks);

  bool hides_records() const { return records_.has_value(); }
  bool hides_site() const { return plan_.has_value(); }
  /// Charges the round's steps where records are hidden. Throws Declined. Collective.
  void begin_round(const RoundStart& start);
  /// With hides_records(): takes the steps.
  train::RecordPrivacy* records() { return records_.has_value() ? &*records_ : nullptr; }
  /// Charges the update of this digest where sites are hidden. Throws Declined. Collective.
  void charge_update(const std::string& plain_digest);
  /// Adds the site's noise to a block of the update that was charged.
  void hide(int64_t block, std::span<std::byte> words) const;
  /// Clips for a norm of the whole update.
  double clip_factor(double norm) const;
  /// Takes out of a submission what would tell exactly what noise, or masks on weights, hide.
  void conceal(federation::Submission& submission) const;

  /// What the round has cost, for the audit log: one object a unit.
  const core::Json& spent() const { return spent_; }
  void set_spent(const core::Json& spent) { spent_ = spent; }

 private:
  void note(const char* unit, const std::string& data_set, double noise, double after, double most);
  std::string site_ledger() const;

  const RunConfig& config_;
  PrivateSite site_;
  const comm::Group& ranks_;
  privacy::RecordPrivacyConfig record_config_;
  std::optional<train::RecordPrivacy> records_;
  std::optional<privacy::SitePrivacyPlan> plan_;
  std::string run_;  ///< name and fingerprint, in ledgers
  int64_t round_ = 0;
  privacy::Secret site_key_;  ///< of the noise on the update that was charged
  core::Json spent_ = core::Json::array();
};

}  // namespace kamerton::cli
