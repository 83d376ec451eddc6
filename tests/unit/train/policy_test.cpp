// SPDX-License-Identifier: Apache-2.0
#include "kamerton/train/policy.h"

#include <gmock/gmock.h>

#include "kamerton/train/progress.h"

namespace kamerton::train {
namespace {

TEST(Policy, SavesAndEvaluatesAtTheirCadencesAndAtTheEnd) {
  TrainConfig config;
  config.eval_every = 4;
  config.checkpoint.every = 3;
  std::vector<int64_t> evaluated, saved;

  for (int64_t step = 1; step <= 10; ++step) {
    const Decision decision = decide(config, step, 10, false);
    EXPECT_FALSE(decision.stop);
    if (decision.evaluate) {
      evaluated.push_back(step);
    }
    if (decision.save) {
      saved.push_back(step);
    }
  }

  EXPECT_THAT(evaluated, testing::ElementsAre(4, 8, 10));
  EXPECT_THAT(saved, testing::ElementsAre(3, 6, 9, 10));
}

TEST(Policy, StopSavesAtOnceAndSkipsEvaluation) {
  TrainConfig config;
  config.eval_every = 1;

  const Decision decision = decide(config, 5, 10, true);

  EXPECT_TRUE(decision.stop);
  EXPECT_TRUE(decision.save);
  EXPECT_FALSE(decision.evaluate);
}

TEST(Policy, StopAtTheLastStepIsAnOrdinaryEnd) {
  const Decision decision = decide(TrainConfig{}, 10, 10, true);

  EXPECT_FALSE(decision.stop);
  EXPECT_TRUE(decision.save);
  EXPECT_TRUE(decision.evaluate);
}

TEST(Progress, LogStaysSmallHoweverLongTheRun) {
  Progress progress;

  for (int64_t step = 1; step <= 100000; ++step) {
    progress.note({step, 1.0, 1.0, 1.0});
  }

  EXPECT_LE(progress.log.size(), Progress::kLogLength);
  EXPECT_GT(progress.log.size(), Progress::kLogLength / 3);
  for (size_t i = 1; i < progress.log.size(); ++i) {
    EXPECT_EQ(progress.log[i].step - progress.log[i - 1].step, progress.log_every);
  }
}

}  // namespace
}  // namespace kamerton::train
