// SPDX-License-Identifier: Apache-2.0
// What a site allows to be done with its data: policy.yaml, the site's own file. What it does not
// name is not allowed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kamerton/federation/config.h"

namespace kamerton::federation {

struct SitePolicy {
  std::vector<std::string> runs;
  std::vector<std::string> methods;
  std::vector<std::string> encodings;
  int64_t min_sites = 3;
  int64_t max_rounds = 0;
  int64_t max_bytes = 0;
  std::string hours = "0-24";
  bool require_secure_aggregation = true;
  double max_site_clip = 0;
  double max_record_epsilon = 0;
  double max_site_epsilon = 0;
  double max_delta = 1e-5;
};

void describe(config::Fields& fields, SitePolicy& policy);

/// ErrorKind::Permission when there is no file: without a policy nothing is allowed.
SitePolicy load_policy(const std::string& path);

/// What a run asks of the site.
struct RunRequest {
  std::string run;
  const FederationConfig& config;
  int64_t update_bytes = 0;    ///< a round
  bool hides_records = false;  ///< privacy.unit: record
};

/// Throws ErrorKind::Permission naming the rule that is broken.
void check_policy(const SitePolicy& policy, const RunRequest& request);
/// Whether the hour of day (0 to 23, local) lies in `hours` ("20-6" goes over midnight).
bool allows_hour(const SitePolicy& policy, int hour);

}  // namespace kamerton::federation
