// SPDX-License-Identifier: Apache-2.0
#include "kamerton/federation/config.h"

#include <functional>

#include <gtest/gtest.h>

#include "support/expect_error.h"

namespace kamerton::federation {
namespace {

struct Refused {
  std::vector<std::string> words;
  std::function<void(FederationConfig&, TrainingFacts&)> change;
};

void expect_refused(const FederationConfig& base, const std::vector<Refused>& cases) {
  for (const Refused& refused : cases) {
    FederationConfig config = base;
    TrainingFacts training;
    refused.change(config, training);
    try {
      validate(config, training);
      ADD_FAILURE() << refused.words[0];
    } catch (const core::Error& error) {
      EXPECT_EQ(error.kind(), core::ErrorKind::Config);
      for (const std::string& word : refused.words) {
        EXPECT_THAT(error.what(), testing::HasSubstr(word));
      }
    }
  }
}

TEST(FederationConfig, MaskedSumsRefuseWhatNeedsSingleUpdates) {
  FederationConfig secure;
  secure.privacy.secure_aggregation = true;
  secure.update.encoding = "ring32";
  secure.weights = "uniform";
  secure.cohort.min_sites = 5;
  EXPECT_NO_THROW(validate(secure, {}));
  expect_refused(
      secure,
      {{{"median", "secure_aggregation"}, [](auto& c, auto&) { c.robust.rule = "median"; }},
       {{"krum"}, [](auto& c, auto&) { c.robust.rule = "krum"; }},
       {{"norm_bound", "cannot measure"}, [](auto& c, auto&) { c.robust.norm_bound = 1; }},
       {{"adapters stack", "sum"},
        [](auto& c, auto& t) {
          t.lora = true;
          c.adapters = "stack";
        }},
       {{"update.encoding f32"}, [](auto& c, auto&) { c.update.encoding = "f32"; }},
       {{"min_sites", "subtraction"}, [](auto& c, auto&) { c.cohort.min_sites = 2; }},
       {{"threshold"}, [](auto& c, auto&) { c.privacy.threshold = 2; }},
       {{"weights targets", "ring32"}, [](auto& c, auto&) { c.weights = "targets"; }}});
}

TEST(FederationConfig, MethodsRefuseWhatTheirPapersExclude) {
  expect_refused({},
                 {{{"scaffold", "plain SGD"}, [](auto& c, auto&) { c.method = "scaffold"; }},
                  {{"scaffold", "constant"},
                   [](auto& c, auto& t) {
                     c.method = "scaffold";
                     t.optimizer = "sgd";
                     t.schedule = "cosine";
                   }},
                  {{"scaffold", "plain mean"},
                   [](auto& c, auto& t) {
                     c.method = "scaffold";
                     t.optimizer = "sgd";
                   }},
                  {{"fedprox", "proximal_mu"}, [](auto& c, auto&) { c.method = "fedprox"; }},
                  {{"proximal_mu does nothing"}, [](auto& c, auto&) { c.local.proximal_mu = 1; }},
                  {{"diloco", "weights"}, [](auto& c, auto&) { c.method = "diloco"; }},
                  {{"fedadam", "adapters svd"},
                   [](auto& c, auto& t) {
                     c.method = "fedadam";
                     c.adapters = "svd";
                     t.lora = true;
                   }},
                  {{"krum", "min_sites of 5"},
                   [](auto& c, auto&) {
                     c.robust.rule = "krum";
                     c.cohort.min_sites = 4;
                   }},
                  {{"top_k", "median"},
                   [](auto& c, auto&) {
                     c.robust.rule = "median";
                     c.update.encoding = "top_k";
                   }},
                  {{"site_clip", "scaffold"},
                   [](auto& c, auto& t) {
                     c.method = "scaffold";
                     c.weights = "uniform";
                     c.privacy.site_clip = 1;
                     t.optimizer = "sgd";
                   }},
                  {{"partition", "exclude"},
                   [](auto& c, auto&) {
                     c.partition.kind = "iid";
                     c.partition.sites = 2;
                     c.sites.resize(1);
                   }},
                  {{"comes twice"},
                   [](auto& c, auto&) {
                     c.sites.resize(2);
                     c.sites[0].name = c.sites[1].name = "a";
                   }},
                  {{"not a name"}, [](auto& c, auto&) {
                     c.sites.resize(1);
                     c.sites[0].name = "../a";
                   }}});
}

}  // namespace
}  // namespace kamerton::federation
