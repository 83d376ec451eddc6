// SPDX-License-Identifier: Apache-2.0
#include "task_vectors.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace kamerton::tuning {
namespace {

at::Tensor row(std::vector<float> values) {
  return at::tensor(values, at::kFloat);
}

TEST(CombineTasks, LinearIsTheWeightedSum) {
  const at::Tensor sum =
      combine_tasks({row({1, 2}), row({4, -1})}, {0.5, -2}, {.how = "linear", .name = "x"});
  EXPECT_TRUE(sum.allclose(row({-7.5, 3})));
}

TEST(CombineTasks, TiesTakesTheMeanOfTheMajoritySign) {
  // Sums 1 + 4 - 2 > 0 and -3 + 1 + 1 < 0: positive ones of the first column, negative of the
  // second.
  const std::vector<at::Tensor> tasks = {row({1, -3}), row({4, 1}), row({-2, 1})};
  const at::Tensor ties = combine_tasks(tasks, {1, 1, 1}, {.how = "ties", .name = "x"});
  EXPECT_TRUE(ties.allclose(row({2.5, -3})));
  const at::Tensor votes =
      combine_tasks(tasks, {1, 1, 1}, {.how = "ties", .by_frequency = true, .name = "x"});
  EXPECT_TRUE(votes.allclose(row({2.5, 1})));
}

TEST(CombineTasks, PruningKeepsTheLargest) {
  const at::Tensor kept = combine_tasks(
      {row({1, -5, 3, 0.5F})}, {2}, {.how = "magnitude_prune", .density = 0.5, .name = "x"});
  EXPECT_TRUE(kept.allclose(row({0, -10, 6, 0})));
}

TEST(CombineTasks, DareDropsAndScalesByTheSeedAlone) {
  const at::Tensor ones = at::ones({10000});
  const TaskOptions options{.how = "dare_linear", .density = 0.25, .seed = 5, .name = "x"};
  const at::Tensor once = combine_tasks({ones}, {1}, options);
  EXPECT_TRUE(combine_tasks({ones}, {1}, options).equal(once));
  EXPECT_TRUE((once.eq(0) | once.eq(4)).all().item<bool>());
  EXPECT_NEAR(once.mean().item<double>(), 1.0, 0.06);
  TaskOptions other = options;
  other.seed = 6;
  EXPECT_FALSE(combine_tasks({ones}, {1}, other).equal(once));
}

}  // namespace
}  // namespace kamerton::tuning
