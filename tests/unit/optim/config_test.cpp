// SPDX-License-Identifier: Apache-2.0
#include "kamerton/optim/config.h"

#include <gmock/gmock.h>

#include "kamerton/config/load.h"
#include "kamerton/core/error.h"

#include "update_rule.h"

namespace kamerton::optim {
namespace {

OptimConfig from_yaml(const std::string& text) {
  OptimConfig config;
  config::Document::from_text(text, "test.yaml").fill(config);
  validate(config);
  return config;
}

TEST(OptimConfig, LoadsEveryKnobThatItDescribes) {
  const auto config = from_yaml(
      "algorithm: sgd\nlr: 0.5\nmomentum: 0.0\nschedule: wsd\nwarmup_steps: 7\nzero_stage: 3\n");

  EXPECT_EQ(config.algorithm, "sgd");
  EXPECT_EQ(config.lr, 0.5);
  EXPECT_EQ(config.warmup_steps, 7);
  EXPECT_EQ(config.zero_stage, 3);
  EXPECT_TRUE(state_kinds(config).empty());
  EXPECT_EQ(state_kinds(OptimConfig{}).size(), 2);
}

TEST(OptimConfig, RefusesValuesOutOfRange) {
  for (const char* text : {"zero_stage: 4",
                           "lr: -1",
                           "beta1: 1.0",
                           "eps: 0",
                           "schedule: quadratic",
                           "algorithm: lion",
                           "warmup_ratio: 2",
                           "learning_rate: 1",
                           "{schedule: wsd, warmup_ratio: 0.6, decay_ratio: 0.6}"}) {
    try {
      from_yaml(text);
      ADD_FAILURE() << text << " was accepted";
    } catch (const core::Error& error) {
      EXPECT_EQ(error.kind(), core::ErrorKind::Config) << text;
    }
  }
}

}  // namespace
}  // namespace kamerton::optim
