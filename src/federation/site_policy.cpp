// SPDX-License-Identifier: Apache-2.0
#include "kamerton/federation/site_policy.h"

#include <algorithm>
#include <filesystem>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "kamerton/config/load.h"
#include "kamerton/core/error.h"
#include "kamerton/core/format.h"

namespace kamerton::federation {
namespace {

using core::Error;
using core::ErrorKind;

bool lists(const std::vector<std::string>& list, const std::string& value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

void require(bool allowed, const std::string& rule, const std::string& got, std::string limit) {
  if (!allowed) {
    throw Error(ErrorKind::Permission,
                {.where = "federation.policy",
                 .what = "this site's policy does not allow the run: " + rule,
                 .got = got,
                 .allowed = std::move(limit),
                 .hint = "whoever answers for the site's data decides; policy.yaml"});
  }
}

/// {begin, end} of "20-6".
std::pair<int, int> hours_of(const std::string& text) {
  int begin = -1;
  int end = -1;
  char rest = 0;
  if (std::sscanf(text.c_str(), "%d-%d%c", &begin, &end, &rest) != 2 || begin < 0 || begin > 24 ||
      end < 0 || end > 24) {
    throw Error(ErrorKind::Config,
                {.where = "federation.policy",
                 .what = "not hours of a day",
                 .got = "'" + text + "'",
                 .allowed = "such as 20-6 or 0-24"});
  }
  return {begin, end};
}

}  // namespace

void describe(config::Fields& f, SitePolicy& c) {
  f.knob("runs", c.runs, {.text = "names of runs that may use this site's data"});
  f.knob("methods", c.methods, {.text = "federation.method of such runs"});
  f.knob("encodings",
         c.encodings,
         {.text = "update.encoding of such runs; empty: ring32 alone, which masks need"});
  f.knob("min_sites",
         c.min_sites,
         {.text = "the fewest sites whose updates may be added up", .min = 1});
  f.knob("max_rounds", c.max_rounds, {.text = "of one run", .min = 0});
  f.knob("max_bytes",
         c.max_bytes,
         {.text = "that leave the site in one round", .unit = "bytes", .min = 0});
  f.knob("hours", c.hours, {.text = "of the day, local time, in which the site works: 20-6"});
  f.knob("require_secure_aggregation",
         c.require_secure_aggregation,
         {.text = "updates leave the site masked only"});
  f.knob(
      "max_site_clip",
      c.max_site_clip,
      {.text = "the largest privacy.site_clip, and one must be set; 0: no such demand", .min = 0});
  f.knob("max_record_epsilon",
         c.max_record_epsilon,
         {.text = "budget of the data set over all runs, which must hide records (privacy.unit); "
                  "the site leaves a run before it is exceeded. 0: no such demand",
          .min = 0});
  f.knob("max_site_epsilon",
         c.max_site_epsilon,
         {.text = "budget of the site as a whole over all runs, which must hide sites "
                  "(federation.privacy.site_noise). 0: no such demand",
          .min = 0});
  f.knob("max_delta",
         c.max_delta,
         {.text = "delta of both budgets", .min = 0, .max = 0.5, .min_exclusive = true});
}

SitePolicy load_policy(const std::string& path) {
  if (!std::filesystem::exists(path)) {
    throw Error(ErrorKind::Permission,
                {.where = "federation.policy",
                 .what = "the site has no policy, so nothing is allowed",
                 .got = path,
                 .hint = "src/federation/README.md has an example to start from"});
  }
  SitePolicy policy;
  config::Document::from_file(path).fill(policy);
  hours_of(policy.hours);
  return policy;
}

void check_policy(const SitePolicy& policy, const RunRequest& request) {
  const FederationConfig& run = request.config;
  require(lists(policy.runs, request.run),
          "runs",
          request.run,
          fmt::format("{}", fmt::join(policy.runs, ", ")));
  require(lists(policy.methods, run.method),
          "methods",
          run.method,
          fmt::format("{}", fmt::join(policy.methods, ", ")));
  require(policy.encodings.empty() ? run.update.encoding == "ring32"
                                   : lists(policy.encodings, run.update.encoding),
          "encodings",
          run.update.encoding,
          fmt::format("{}", fmt::join(policy.encodings, ", ")));
  require(run.cohort.min_sites >= policy.min_sites,
          "min_sites",
          fmt::format("cohort.min_sites {}", run.cohort.min_sites),
          fmt::format("at least {}", policy.min_sites));
  require(run.rounds <= policy.max_rounds,
          "max_rounds",
          fmt::format("{}", run.rounds),
          fmt::format("at most {}", policy.max_rounds));
  require(request.update_bytes <= policy.max_bytes,
          "max_bytes",
          core::format_bytes(static_cast<uint64_t>(request.update_bytes)),
          fmt::format("at most {} a round", policy.max_bytes));
  require(!policy.require_secure_aggregation || run.privacy.secure_aggregation,
          "require_secure_aggregation",
          "plain updates",
          "privacy.secure_aggregation: true");
  require(policy.max_site_clip == 0 ||
              (run.privacy.site_clip > 0 && run.privacy.site_clip <= policy.max_site_clip),
          "max_site_clip",
          fmt::format("privacy.site_clip {}", run.privacy.site_clip),
          fmt::format("above 0, at most {}", policy.max_site_clip));
  require(policy.max_record_epsilon == 0 || request.hides_records,
          "max_record_epsilon",
          "records are not hidden",
          "privacy.unit: record");
  require(policy.max_site_epsilon == 0 || run.privacy.site_noise > 0,
          "max_site_epsilon",
          "sites are not hidden",
          "federation.privacy.site_noise above 0");
}

bool allows_hour(const SitePolicy& policy, int hour) {
  const auto [begin, end] = hours_of(policy.hours);
  return begin <= end ? hour >= begin && hour < end : hour >= begin || hour < end;
}

}  // namespace kamerton::federation
