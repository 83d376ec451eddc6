// SPDX-License-Identifier: Apache-2.0
// Ranks are threads here (comm::run_local); the same claims over MPI are in tests/dist/optim.
#include "kamerton/optim/sharded_parameters.h"

#include <cmath>
#include <limits>

#include <gmock/gmock.h>

#include "kamerton/comm/local_group.h"
#include "kamerton/core/error.h"

#include "unit/optim/tiny_net.h"

namespace kamerton::optim {
namespace {

using namespace testing;

RunResult train_on(int ranks, const RunOptions& options) {
  std::vector<RunResult> results(ranks);
  comm::run_local(ranks, [&](comm::Group world) { results[world.rank()] = train(world, options); });
  for (const auto& result : results) {
    EXPECT_TRUE(same_bits(result, results[0])) << "ranks differ";
  }
  return results[0];
}

RunOptions with_stage(int64_t stage, const NetOptions& net = {}) {
  RunOptions options;
  options.net = net;
  options.optim = adamw(stage);
  return options;
}

void expect_close(const RunResult& run, const RunResult& reference, const std::string& what) {
  ASSERT_EQ(run.losses.size(), reference.losses.size());
  for (size_t step = 0; step < run.losses.size(); ++step) {
    EXPECT_NEAR(run.losses[step], reference.losses[step], 1e-6 * std::abs(reference.losses[step]))
        << what << " step " << step;
    EXPECT_NEAR(run.norms[step], reference.norms[step], 1e-5 * reference.norms[step])
        << what << " step " << step;
  }
  EXPECT_LT(largest_difference(run, reference), 2e-5) << what;
}

TEST(ShardedParameters, EveryStageOnEveryWorldSizeFollowsPlainAutograd) {
  for (const bool tied : {true, false}) {
    const RunResult reference = train_plainly(with_stage(0, {.tied = tied}));
    EXPECT_LT(reference.losses.back(), reference.losses.front());
    for (const int ranks : {1, 2, 3, 4}) {
      for (const int64_t stage : {0, 1, 2, 3}) {
        const auto run = train_on(ranks, with_stage(stage, {.tied = tied}));
        expect_close(run,
                     reference,
                     "tied " + std::to_string(tied) + " ranks " + std::to_string(ranks) +
                         " stage " + std::to_string(stage));
      }
    }
  }
}

TEST(ShardedParameters, StagesHaveTheSameBits) {
  for (const bool tied : {true, false}) {
    for (const int ranks : {2, 3, 4}) {
      const auto first = train_on(ranks, with_stage(0, {.tied = tied}));
      for (const int64_t stage : {1, 2, 3}) {
        EXPECT_TRUE(same_bits(train_on(ranks, with_stage(stage, {.tied = tied})), first))
            << ranks << " ranks, stage " << stage << ", tied " << tied;
      }
    }
  }
}

TEST(ShardedParameters, RecomputationChangesNoBit) {
  for (const int64_t stage : {1, 3}) {
    EXPECT_TRUE(same_bits(train_on(2, with_stage(stage, {.checkpoint = true})),
                          train_on(2, with_stage(stage))))
        << stage;
  }
}

TEST(ShardedParameters, MicroBatchesAddUp) {
  for (const bool tied : {true, false}) {
    const RunResult reference = train_plainly(with_stage(0, {.tied = tied}));
    for (const int ranks : {1, 2, 4}) {
      for (const int64_t stage : {0, 1, 2, 3}) {
        RunOptions options = with_stage(stage, {.tied = tied});
        options.micro_batches = 3;
        expect_close(train_on(ranks, options),
                     reference,
                     std::to_string(ranks) + " ranks, stage " + std::to_string(stage));
      }
    }
  }
}

TEST(ShardedParameters, AdaptersTrainAndFrozenWeightsStayUntouched) {
  const NetOptions net{.adapters = true};
  const RunResult reference = train_plainly(with_stage(0, net));
  for (const int64_t stage : {0, 1, 2, 3}) {
    const auto run = train_on(3, with_stage(stage, net));
    expect_close(run, reference, "stage " + std::to_string(stage));
    EXPECT_TRUE(at::equal(run.weights.at("layers.1.down"), reference.weights.at("layers.1.down")));
  }
}

TEST(ShardedParameters, ReplicasOfShardsEqualOneWideGroup) {
  const RunResult reference = train_plainly(with_stage(0));
  RunResult first;
  for (const int64_t stage : {0, 1, 2, 3}) {
    RunOptions options = with_stage(stage);
    options.replicas = 2;
    const auto run = train_on(4, options);
    expect_close(run, reference, "stage " + std::to_string(stage));
    if (stage == 0) {
      first = run;
    }
    EXPECT_TRUE(same_bits(run, first)) << "stage " << stage;
  }
}

TEST(ShardedParameters, SgdStagesAgree) {
  RunOptions options = with_stage(0);
  options.optim.algorithm = "sgd";
  options.optim.lr = 0.3;
  const auto one = train_on(1, options);
  const auto first = train_on(2, options);
  EXPECT_LT(one.losses.back(), one.losses.front());
  expect_close(first, one, "two ranks");
  for (const int64_t stage : {1, 2, 3}) {
    options.optim.zero_stage = stage;
    EXPECT_TRUE(same_bits(train_on(2, options), first)) << stage;
  }
}

TEST(ShardedParameters, HalfPrecisionTrainsOnFullPrecisionMasters) {
  const auto full = train_on(2, with_stage(0));
  RunOptions options = with_stage(0);
  options.dtype = at::kBFloat16;
  const auto first = train_on(2, options);
  for (const int64_t stage : {1, 2, 3}) {
    options.optim.zero_stage = stage;
    EXPECT_TRUE(same_bits(train_on(2, options), first)) << stage;
  }
  EXPECT_EQ(first.weights.at("layers.0.up").scalar_type(), at::kFloat);
  for (size_t step = 0; step < full.losses.size(); ++step) {
    EXPECT_NEAR(first.losses[step], full.losses[step], 0.02 * full.losses[step]) << step;
  }
  // Updates far below bf16's resolution must not be lost.
  options.optim.lr = 1e-6;
  options.steps = 3;
  const auto still = train_on(2, options);
  int64_t moved = 0;
  const auto& weight = still.weights.at("layers.0.up");
  for (int64_t i = 0; i < weight.numel(); ++i) {
    moved += weight.data_ptr<float>()[i] != TinyNet::initial("layers.0.up", i, 2) ? 1 : 0;
  }
  EXPECT_GT(moved, weight.numel() * 9 / 10);
}

TEST(ShardedParameters, AllRanksSkipWhenOneSeesNoNumber) {
  for (const int64_t stage : {0, 1, 2, 3}) {
    for (const bool by_gradient : {true, false}) {
      comm::run_local(4, [&](comm::Group world) {
        TinyNet net({});
        RunOptions options = with_stage(stage);
        ShardedParameters sharded(net.units, groups_of(world, 2), options.optim, at::kFloat);
        sharded.load(fill_initial);
        const Batch batch = batch_of(0, 37);
        const bool bad = world.rank() == 1;
        sharded.begin_micro_batch(true);
        const double scale = bad && by_gradient ? std::numeric_limits<double>::quiet_NaN() : 1.0;
        torch::autograd::backward({net.loss(&sharded, batch.tokens, batch.targets, scale)}, {});

        const auto report = sharded.finish_gradients(1.0, !(bad && !by_gradient));

        EXPECT_FALSE(report.finite) << "rank " << world.rank() << " stage " << stage;
        // The next step starts from zero.
        accumulate(net, sharded, world, options, 0);
        EXPECT_TRUE(sharded.finish_gradients(1.0).finite);
      });
    }
  }
}

TEST(ShardedParameters, ClipsAsTorchDoes) {
  comm::run_local(2, [](comm::Group world) {
    TinyNet net({});
    const RunOptions options = with_stage(2);
    ShardedParameters sharded(net.units, groups_of(world, 1), options.optim, at::kFloat);
    sharded.load(fill_initial);
    accumulate(net, sharded, world, options, 0);
    const auto report = sharded.finish_gradients(0.5);
    accumulate(net, sharded, world, options, 0);
    const auto loose = sharded.finish_gradients(1e6);
    accumulate(net, sharded, world, options, 0);
    const auto off = sharded.finish_gradients(0.0);

    EXPECT_GT(report.norm, 0.5);
    EXPECT_DOUBLE_EQ(report.clip_factor, 0.5 / (report.norm + 1e-6));
    EXPECT_EQ(loose.norm, report.norm);
    EXPECT_EQ(loose.clip_factor, 1.0);
    EXPECT_EQ(off.clip_factor, 1.0);
  });
}

TEST(ShardedParameters, EachRankReadsOnlyItsShard) {
  comm::run_local(4, [](comm::Group world) {
    TinyNet net({});
    ShardedParameters sharded(net.units, groups_of(world, 1), adamw(3), at::kFloat);
    int64_t total = 0;
    for (const auto& unit : net.units) {
      total += unit.numel(true);
    }
    int64_t read = 0;
    sharded.load([&](const tensor::Parameter& parameter, int64_t offset, at::Tensor out) {
      EXPECT_EQ(out.dim(), 1);
      EXPECT_LE(offset + out.numel(), parameter.numel());
      read += out.numel();
      fill_initial(parameter, offset, out);
    });

    EXPECT_EQ(world.sum(read), total);
    EXPECT_LT(read, total / 4 + 64 * 5);
    for (const auto& unit : net.units) {
      for (const auto& parameter : unit.parameters) {
        auto expected = at::empty({parameter->numel()}, at::kFloat);
        fill_initial(*parameter, 0, expected);
        EXPECT_TRUE(at::equal(sharded.fetch(*parameter), expected.view(parameter->shape)))
            << parameter->name;
      }
    }
  });
}

TEST(ShardedParameters, StageThreeHoldsItsShareAndTwoUnits) {
  for (const bool tied : {true, false}) {
    comm::run_local(4, [&](comm::Group world) {
      const NetOptions shape{
          .tied = tied, .vocabulary = 300, .width = 64, .inner = 256, .blocks = 8};
      TinyNet net(shape);
      RunOptions options = with_stage(3, shape);
      ShardedParameters sharded(net.units, groups_of(world, 1), options.optim, at::kFloat);
      sharded.load(fill_initial);
      for (int step = 0; step < 3; ++step) {
        accumulate(net, sharded, world, options, step);
        sharded.finish_gradients(1.0);
        sharded.update(step + 1, 1e-3);
      }
      int64_t elements = 0;
      for (const auto& unit : net.units) {
        elements += unit.numel(true);
      }
      const ShardedBytes bytes = sharded.bytes();
      const int64_t padding = 64 * 4 * static_cast<int64_t>(net.units.size());

      EXPECT_EQ(sharded.stage(), 3);
      EXPECT_LE(bytes.parameters, elements + padding);
      EXPECT_LE(bytes.gradients, elements + padding);
      EXPECT_LE(bytes.optimizer_state, 2 * (elements + padding));
      EXPECT_LE(bytes.transient_peak,
                2 * bytes.largest_unit_parameters + bytes.largest_unit_gradients);
      EXPECT_GE(bytes.transient_peak, bytes.largest_unit_parameters);
      EXPECT_EQ(bytes.transient, 0);
    });
  }
}

TEST(ShardedParameters, EvaluationNeedsNoStateAndReleasesAfterUse) {
  comm::run_local(2, [](comm::Group world) {
    TinyNet net({});
    ShardedParameters sharded(net.units, groups_of(world, 1), adamw(3), at::kFloat);
    sharded.load(fill_initial);
    const Batch batch = batch_of(0, 37);
    const at::NoGradGuard no_grad;
    const double first = net.loss(&sharded, batch.tokens, batch.targets, 1.0).item<double>();
    const double second = net.loss(&sharded, batch.tokens, batch.targets, 1.0).item<double>();

    EXPECT_EQ(first, second);
    EXPECT_EQ(sharded.bytes().transient, 0);
    EXPECT_EQ(sharded.bytes().optimizer_state, 0);
    EXPECT_EQ(sharded.bytes().gradients, 0);
  });
}

TEST(ShardedParameters, MistakesOfTheCallerAreNamed) {
  TinyNet net({});
  const ShardGroups alone;
  EXPECT_THROW(ShardedParameters(net.units, alone, adamw(1), at::kLong), core::Error);
  EXPECT_THROW(ShardedParameters(net.units, alone, adamw(4), at::kFloat), core::Error);
  auto doubled = net.units;
  doubled[1].parameters.push_back(doubled[2].parameters[0]);
  EXPECT_THROW(ShardedParameters(doubled, alone, adamw(1), at::kFloat), core::Error);

  ShardedParameters sharded(net.units, alone, adamw(1), at::kFloat);
  EXPECT_THROW(sharded.before_backward(0), core::Error);
  EXPECT_THROW(sharded.fetch(tensor::Parameter{}), core::Error);
  sharded.begin_micro_batch(true);
  EXPECT_THROW(sharded.update(1, 0.1), core::Error);
  net.units[1].parameters[0]->value.mutable_grad() = at::zeros({24});
  EXPECT_THROW(sharded.finish_gradients(1.0), core::Error);
}

}  // namespace
}  // namespace kamerton::optim
