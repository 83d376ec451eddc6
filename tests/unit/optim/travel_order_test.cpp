// SPDX-License-Identifier: Apache-2.0
#include "travel_order.h"

#include <gmock/gmock.h>

namespace kamerton::optim {
namespace {

std::vector<int> expected_next(TravelOrder& order,
                               const std::vector<int>& forward,
                               const std::vector<int>& backward) {
  std::vector<int> next;
  order.begin_training_pass();
  for (const int unit : forward) {
    next.push_back(order.forward(unit));
  }
  for (const int unit : backward) {
    next.push_back(order.backward(unit));
  }
  return next;
}

TEST(TravelOrder, KnowsThePlainOrderFromTheStart) {
  TravelOrder order(3);
  EXPECT_EQ(expected_next(order, {0, 1, 2}, {2, 1, 0}), (std::vector<int>{1, 2, 2, 1, 0, -1}));
}

TEST(TravelOrder, LearnsAUnitThatIsUsedTwice) {
  TravelOrder order(3);
  expected_next(order, {0, 1, 2, 0}, {0, 2, 1, 0});
  EXPECT_EQ(expected_next(order, {0, 1, 2, 0}, {0, 2, 1, 0}),
            (std::vector<int>{1, 2, 0, 0, 2, 1, 0, -1}));
}

TEST(TravelOrder, LearnsAHeadThatHasNoForwardBracket) {
  TravelOrder order(3);
  expected_next(order, {0, 1}, {2, 1});
  EXPECT_EQ(expected_next(order, {0, 1}, {2, 1}), (std::vector<int>{1, 2, 1, -1}));
}

TEST(TravelOrder, EvaluationDisturbsNothing) {
  TravelOrder order(3);
  expected_next(order, {0, 1}, {2, 1, 0});
  EXPECT_EQ(order.forward(0), 1);
  EXPECT_EQ(order.forward(1), -1);
  EXPECT_EQ(order.forward(2), -1);
  EXPECT_EQ(order.forward(0), -1);
  EXPECT_EQ(order.forward(1), -1);
  EXPECT_EQ(expected_next(order, {0, 1}, {2, 1, 0}), (std::vector<int>{1, 2, 1, 0, -1}));
}

}  // namespace
}  // namespace kamerton::optim
