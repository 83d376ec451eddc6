// SPDX-License-Identifier: Apache-2.0
#include "kamerton/optim/rank_budget.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include "kamerton/comm/local_group.h"

#include "unit/optim/tiny_net.h"

namespace kamerton::optim {
namespace {

using namespace ::testing;

tensor::ParameterPtr parameter(const std::string& name, std::vector<int64_t> shape) {
  auto made = std::make_shared<tensor::Parameter>();
  made->name = name;
  made->shape = std::move(shape);
  made->adapter = true;
  return made;
}

/// Two matrices of rank 3 in a unit.
struct Factors {
  std::vector<Triplets> matrices = {
      {parameter("one.a", {3, 50}), parameter("one.b", {40, 3}), parameter("one.e", {3, 1})},
      {parameter("two.a", {3, 20}), parameter("two.b", {70, 3}), parameter("two.e", {3, 1})}};
  std::vector<tensor::ParamUnit> units = {{0, "layers.0", {}}};

  Factors() {
    for (const Triplets& matrix : matrices) {
      units[0].parameters.insert(units[0].parameters.end(), {matrix.a, matrix.b, matrix.e});
    }
  }
  RankBudget budget() const {
    RankBudget budget;
    budget.matrices = matrices;
    budget.target_rank = 1;
    budget.total_steps = 6;
    budget.first_steps = 1;
    budget.last_steps = 2;
    budget.orthogonality = 0.4;
    return budget;
  }
};

at::Tensor values_of(const std::string& name, const std::vector<int64_t>& shape, int64_t step) {
  const core::RandomStream random(5, name, static_cast<uint64_t>(step));
  at::Tensor values = at::empty(shape, at::kFloat);
  for (int64_t i = 0; i < values.numel(); ++i) {
    values.mutable_data_ptr<float>()[i] =
        static_cast<float>(random.normal(static_cast<uint64_t>(i)));
  }
  return values;
}

/// The paper's and PEFT's formulas in double on whole tensors; SGD without momentum.
class Reference {
 public:
  explicit Reference(const Factors& factors) : budget_(factors.budget()) {
    for (const tensor::ParameterPtr& p : factors.units[0].parameters) {
      names_.push_back(p->name);
      values_.push_back(values_of(p->name, p->shape, 0).to(at::kDouble));
      sensitivity_.push_back(at::zeros_like(values_.back()));
      uncertainty_.push_back(at::zeros_like(values_.back()));
    }
  }

  /// Returns the penalty before the step.
  double step(int64_t number, double lr) {
    double penalty = 0;
    for (size_t i = 0; i < values_.size(); ++i) {
      at::Tensor gradient = values_of(names_[i], values_[i].sizes().vec(), number).to(at::kDouble);
      if (i % 3 < 2) {  // A, B
        const at::Tensor leaf = values_[i].detach().clone().requires_grad_(true);
        const at::Tensor gram = i % 3 == 0 ? at::mm(leaf, leaf.t()) : at::mm(leaf.t(), leaf);
        const at::Tensor norm = (gram - at::eye(3, at::kDouble)).norm() * (0.4 / 4);
        norm.backward();
        penalty += norm.item<double>();
        gradient = gradient + leaf.grad();
      }
      values_[i] = values_[i] - lr * gradient;
      if (number < 4) {
        const at::Tensor now = (values_[i] * gradient).abs();
        sensitivity_[i] = 0.85 * sensitivity_[i] + 0.15 * now;
        uncertainty_[i] = 0.85 * uncertainty_[i] + 0.15 * (now - sensitivity_[i]).abs();
      }
    }
    if (number > 1) {
      prune(number == 2 ? 3 : 2);  // int(4 (2/3)^3 + 2), int(4 (1/3)^3 + 2), then the target
    }
    return penalty;
  }
  const at::Tensor& value(size_t i) const { return values_[i]; }

 private:
  void prune(int64_t kept) {
    std::vector<at::Tensor> scores;
    for (size_t m = 0; m < 2; ++m) {
      const auto score = [&](size_t i) { return sensitivity_[i] * uncertainty_[i]; };
      scores.push_back(score(3 * m).mean(1) + score(3 * m + 1).mean(0) + score(3 * m + 2).view(-1));
    }
    const at::Tensor sorted = std::get<0>(at::cat(scores).sort());
    const double threshold = sorted[6 - kept - 1].item<double>();
    for (size_t m = 0; m < 2; ++m) {
      values_[3 * m + 2].masked_fill_(scores[m].le(threshold).view({3, 1}), 0.0);
    }
  }

  RankBudget budget_;
  std::vector<std::string> names_;
  std::vector<at::Tensor> values_, sensitivity_, uncertainty_;
};

TEST(RankBudget, ScheduleIsPefts) {
  RankBudget budget;
  budget.matrices.assign(5, {parameter("a", {12, 2}), nullptr, nullptr});
  budget.target_rank = 4;
  budget.total_steps = 100;
  budget.first_steps = 10;
  budget.last_steps = 20;
  budget.interval = 5;

  EXPECT_EQ(budget.triplets_after(10), std::nullopt);
  EXPECT_EQ(budget.triplets_after(14), std::nullopt);
  EXPECT_EQ(budget.triplets_after(15), 52);  // int(40 (65/70)^3 + 20)
  EXPECT_EQ(budget.triplets_after(50), 23);  // int(40 (30/70)^3 + 20)
  EXPECT_EQ(budget.triplets_after(81), 20) << "each step once it is over";
  EXPECT_TRUE(budget.learns(79));
  EXPECT_FALSE(budget.learns(80));
}

TEST(RankBudget, ThresholdIsTheScoreOfTheLastThatGoes) {
  EXPECT_EQ(pruning_threshold({5, 1, 4, 2, 3}, 2), 3);
  EXPECT_EQ(pruning_threshold({5, 1, 4, 2, 3}, 0), 5);
  EXPECT_LT(pruning_threshold({5, 1, 4, 2, 3}, 5), -1e300);
  EXPECT_LT(pruning_threshold({5, 1}, 9), -1e300);
}

class RankBudgetRun : public TestWithParam<std::tuple<int, int64_t, at::ScalarType>> {};

TEST_P(RankBudgetRun, UpdatesArePrunedByTheFormula) {
  const auto [ranks, stage, dtype] = GetParam();
  const bool exact = dtype == at::kFloat;
  Reference reference{Factors()};
  std::vector<double> penalties;
  for (int64_t step = 1; step <= 6; ++step) {
    penalties.push_back(reference.step(step, 0.05));
  }

  comm::run_local(ranks, [&](comm::Group world) {
    const at::NoGradGuard no_grad;
    Factors factors;
    OptimConfig config;
    config.algorithm = "sgd";
    config.momentum = 0;
    config.weight_decay = 0;
    config.zero_stage = stage;
    config.sensitivity = true;
    ShardedParameters sharded(factors.units, testing::groups_of(world, 1), config, dtype);
    sharded.load([](const tensor::Parameter& p, int64_t offset, at::Tensor out) {
      out.copy_(values_of(p.name, p.shape, 0).view(-1).narrow(0, offset, out.numel()));
    });
    sharded.set_rank_budget(factors.budget());
    for (int64_t step = 1; step <= 6; ++step) {
      sharded.begin_micro_batch(true);
      sharded.before_forward(0);
      sharded.after_forward(0);
      sharded.before_backward(0);
      for (const tensor::ParameterPtr& p : factors.units[0].parameters) {
        p->gradient.copy_(values_of(p->name, p->shape, step) / world.size());
      }
      sharded.after_backward(0);
      const GradientReport report = sharded.finish_gradients(0.0);
      EXPECT_NEAR(report.orthogonality, penalties[static_cast<size_t>(step - 1)], 1e-4);
      sharded.update(step, 0.05, step);
    }
    EXPECT_EQ(sharded.triplets_left(), 2);
    for (size_t i = 0; i < factors.units[0].parameters.size(); ++i) {
      const at::Tensor whole = sharded.fetch(*factors.units[0].parameters[i]).to(at::kDouble);
      EXPECT_TRUE(at::allclose(whole, reference.value(i), 1e-4, 1e-5)) << i;
      sharded.before_forward(0);
      const at::Tensor used = factors.units[0].parameters[i]->value.to(at::kDouble);
      EXPECT_TRUE(at::allclose(used, whole, exact ? 0.0 : 1e-2, exact ? 0.0 : 1e-3)) << i;
      sharded.after_forward(0);
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Ranks,
                         RankBudgetRun,
                         Combine(Values(1, 2, 4),
                                 Values(0, 1, 2, 3),
                                 Values(at::kFloat, at::kBFloat16)));

}  // namespace
}  // namespace kamerton::optim
