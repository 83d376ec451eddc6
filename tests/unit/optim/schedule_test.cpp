// SPDX-License-Identifier: Apache-2.0
// Golden numbers: transformers 5.23 (get_*_schedule_with_warmup on SGD with lr 1).
#include "kamerton/optim/schedule.h"

#include <cstdlib>
#include <fstream>
#include <sstream>

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/core/json.h"

namespace kamerton::optim {
namespace {

OptimConfig schedule(const std::string& name, int64_t warmup, double floor = 0.0) {
  OptimConfig config;
  config.lr = 1.0;
  config.schedule = name;
  config.warmup_steps = warmup;
  config.min_lr_ratio = floor;
  return config;
}

void expect_rates(const OptimConfig& config, int64_t total, const std::vector<double>& expected) {
  for (size_t step = 0; step < expected.size(); ++step) {
    EXPECT_NEAR(learning_rate(config, static_cast<int64_t>(step), total), expected[step], 1e-15)
        << "step " << step;
  }
}

TEST(Schedule, ConstantWithWarmupIsTransformers) {
  expect_rates(
      schedule("constant", 3), 10, {0.0, 0.3333333333333333, 0.6666666666666666, 1.0, 1.0});
}

TEST(Schedule, LinearWithWarmupIsTransformers) {
  expect_rates(schedule("linear", 3),
               10,
               {0.0,
                0.3333333333333333,
                0.6666666666666666,
                1.0,
                0.8571428571428571,
                0.7142857142857143,
                0.5714285714285714,
                0.42857142857142855,
                0.2857142857142857,
                0.14285714285714285,
                0.0,
                0.0});
}

TEST(Schedule, CosineWithWarmupIsTransformersUpToTheEndAndStaysThere) {
  expect_rates(schedule("cosine", 3),
               10,
               {0.0,
                0.3333333333333333,
                0.6666666666666666,
                1.0,
                0.9504844339512095,
                0.8117449009293668,
                0.6112604669781572,
                0.38873953302184283,
                0.18825509907063326,
                0.04951556604879048,
                0.0,
                0.0});
}

TEST(Schedule, CosineWithAFloorIsTransformers) {
  expect_rates(schedule("cosine", 3, 0.1),
               10,
               {0.0,
                0.3333333333333333,
                0.6666666666666666,
                1.0,
                0.9554359905560885,
                0.8305704108364301,
                0.6501344202803414,
                0.44986557971965857,
                0.26942958916356996,
                0.14456400944391146,
                0.1});
}

TEST(Schedule, WarmupStableDecayIsTransformersInAllShapes) {
  auto config = schedule("wsd", 2);
  config.decay_ratio = 0.4;
  expect_rates(
      config,
      10,
      {0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.8535533905932737, 0.5, 0.14644660940672627, 0.0, 0.0});
  config.decay_shape = "1-sqrt";
  expect_rates(
      config,
      10,
      {0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.2928932188134524, 0.1339745962155614, 0.0, 0.0});
  config.decay_shape = "linear";
  config.min_lr_ratio = 0.2;
  expect_rates(
      config,
      10,
      {0.2, 0.6000000000000001, 1.0, 1.0, 1.0, 1.0, 1.0, 0.8, 0.6000000000000001, 0.4, 0.2, 0.2});
}

TEST(Schedule, WarmupRatioRoundsUpAndStepsWinOverIt) {
  OptimConfig config;
  config.warmup_ratio = 0.03;
  EXPECT_EQ(num_warmup_steps(config, 101), 4);
  config.warmup_steps = 0;
  EXPECT_EQ(num_warmup_steps(config, 101), 0);
  EXPECT_DOUBLE_EQ(learning_rate(config, 0, 101), config.lr);
}

TEST(Schedule, SurvivesRunsOfNoAndOneStep) {
  for (const char* name : {"constant", "linear", "cosine", "wsd"}) {
    OptimConfig config;
    config.schedule = name;
    for (const int64_t total : {0, 1}) {
      for (int64_t step = 0; step < 3; ++step) {
        const double rate = learning_rate(config, step, total);
        EXPECT_TRUE(rate >= 0.0 && rate <= config.lr)
            << name << " " << total << " " << step << " " << rate;
      }
    }
  }
}

TEST(Schedule, NegativeStepIsAnError) {
  EXPECT_THROW(learning_rate({}, -1, 10), core::Error);
}

TEST(Schedule, FollowsTheRecordedTrainingRuns) {
  const char* shared = std::getenv("KAMERTON_SHARED");
  std::ifstream file(std::string(shared == nullptr ? "" : shared) + "/fixtures/training/runs.json");
  if (!file) {
    GTEST_SKIP() << "no fixtures/training/runs.json under KAMERTON_SHARED";
  }
  std::stringstream text;
  text << file.rdbuf();
  const auto runs = core::parse_json(text.str(), "runs.json");
  const auto& log = runs.at("runs").at("full").at("log");
  OptimConfig config = schedule("cosine", 5);
  config.lr = 1e-3;

  for (size_t step = 0; step < log.size(); ++step) {
    EXPECT_NEAR(learning_rate(config, static_cast<int64_t>(step), 20),
                log[step].at("lr").get<double>(),
                1e-15);
  }
  EXPECT_EQ(log.size(), 20);
}

}  // namespace
}  // namespace kamerton::optim
