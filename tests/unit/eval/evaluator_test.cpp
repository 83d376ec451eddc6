// SPDX-License-Identifier: Apache-2.0
#include "kamerton/eval/evaluator.h"

#include <gmock/gmock.h>

namespace kamerton::eval {
namespace {

TEST(Matches, ExactIgnoresWhiteSpaceAtTheEndsOnly) {
  EXPECT_TRUE(matches(" Warsaw\n", "Warsaw", Match::Exact));
  EXPECT_FALSE(matches("warsaw", "Warsaw", Match::Exact));
  EXPECT_FALSE(matches("Warsaw \n is", "Warsaw is", Match::Exact));
}

TEST(Matches, FirstLineIgnoresTheRestAndLetterCase) {
  EXPECT_TRUE(matches("\ncategory: Roaming \nReply: x", "Category: roaming\nReply: y", Match::FirstLine));
  EXPECT_FALSE(matches("Category: roaming fees\nReply: y", "Category: roaming\nReply: y", Match::FirstLine));
  EXPECT_FALSE(matches("", "Category: roaming", Match::FirstLine));
}

TEST(LossReport, DividesSumsOnceAndSurvivesNoTargets) {
  const LossReport report{.nll_sum = 6.0, .targets = 3, .correct = 2};

  EXPECT_DOUBLE_EQ(report.loss(), 2.0);
  EXPECT_DOUBLE_EQ(report.perplexity(), std::exp(2.0));
  EXPECT_DOUBLE_EQ(report.token_accuracy(), 2.0 / 3.0);
  EXPECT_DOUBLE_EQ(LossReport{}.loss(), 0.0);
}

}  // namespace
}  // namespace kamerton::eval
