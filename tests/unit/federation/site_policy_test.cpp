// SPDX-License-Identifier: Apache-2.0
#include "kamerton/federation/site_policy.h"

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace kamerton::federation {
namespace {

SitePolicy open_policy() {
  SitePolicy policy;
  policy.runs = {"tickets"};
  policy.methods = {"fedavg"};
  policy.encodings = {"f32"};
  policy.max_rounds = 10;
  policy.max_bytes = 1000;
  policy.require_secure_aggregation = false;
  return policy;
}

TEST(SitePolicy, WithoutAFileNothingIsAllowed) {
  test::expect_error(
      core::ErrorKind::Permission, {"no policy"}, [] { load_policy("/nonexistent/policy.yaml"); });
}

TEST(SitePolicy, AnEmptyFileAllowsNothing) {
  const test::TemporaryFolder folder;
  test::write_text(folder / "policy.yaml", "min_sites: 3\n");
  const SitePolicy policy = load_policy((folder / "policy.yaml").string());
  FederationConfig config;
  test::expect_error(core::ErrorKind::Permission, {"runs"}, [&] {
    check_policy(policy, {"tickets", config, 1});
  });
}

TEST(SitePolicy, EveryRuleRefusesByName) {
  FederationConfig good;
  good.cohort.min_sites = 3;
  EXPECT_NO_THROW(check_policy(open_policy(), {"tickets", good, 1000}));
  const auto refused = [&](const char* rule, const auto& change) {
    SitePolicy policy = open_policy();
    FederationConfig config = good;
    RunRequest request{"tickets", config, 1000};
    change(policy, config, request);
    test::expect_error(core::ErrorKind::Permission, {rule}, [&] { check_policy(policy, request); });
  };
  refused("runs", [](auto&, auto&, auto& r) { r.run = "other"; });
  refused("max_record_epsilon", [](auto& p, auto&, auto&) { p.max_record_epsilon = 1; });
  refused("max_site_epsilon", [](auto& p, auto&, auto&) { p.max_site_epsilon = 1; });
  refused("methods", [](auto&, auto& c, auto&) { c.method = "diloco"; });
  refused("encodings", [](auto&, auto& c, auto&) { c.update.encoding = "int8"; });
  refused("min_sites", [](auto&, auto& c, auto&) { c.cohort.min_sites = 2; });
  refused("max_rounds", [](auto&, auto& c, auto&) { c.rounds = 11; });
  refused("max_bytes", [](auto&, auto&, auto& r) { r.update_bytes = 1001; });
  refused("require_secure_aggregation",
          [](auto& p, auto&, auto&) { p.require_secure_aggregation = true; });
  refused("max_site_clip", [](auto& p, auto&, auto&) { p.max_site_clip = 1; });
}

TEST(SitePolicy, HoursGoOverMidnight) {
  SitePolicy policy = open_policy();
  policy.hours = "20-6";
  for (const int hour : {20, 23, 0, 5}) {
    EXPECT_TRUE(allows_hour(policy, hour)) << hour;
  }
  for (const int hour : {6, 12, 19}) {
    EXPECT_FALSE(allows_hour(policy, hour)) << hour;
  }
  policy.hours = "0-24";
  EXPECT_TRUE(allows_hour(policy, 13));
}

}  // namespace
}  // namespace kamerton::federation
