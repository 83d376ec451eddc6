// SPDX-License-Identifier: Apache-2.0
// Distance to the start, importance, the moving average: against double precision autograd.
#include <cmath>
#include <map>

#include <gmock/gmock.h>

#include "kamerton/comm/local_group.h"
#include "kamerton/optim/sharded_parameters.h"

#include "unit/optim/tiny_net.h"

namespace kamerton::optim {
namespace {

using namespace testing;

constexpr int64_t kExamples = 8;

/// Example i: three rows of batch 100 + i.
at::Tensor example_loss(TinyNet& net, tensor::UnitHooks* hooks, int64_t example, double scale) {
  const Batch batch = batch_of(100 + example, 37);
  return net.loss(
      hooks, batch.tokens.narrow(0, 0, 3), at::arange(3, at::kLong) + example % 5, scale);
}

RunOptions options_for(int64_t stage, bool tied) {
  RunOptions options;
  options.net.tied = tied;
  options.optim = adamw(stage);
  options.optim.ewc = 2.0;
  return options;
}

struct Measured {
  std::map<std::string, at::Tensor> importance;
  double penalty = 0;
  std::map<std::string, at::Tensor> weights;
};

/// Importance from kExamples, then two steps.
Measured measure(const comm::Group& world, const RunOptions& options, int replicas) {
  TinyNet net(options.net);
  ShardedParameters sharded(net.units, groups_of(world, replicas), options.optim, at::kFloat);
  sharded.load(fill_initial);
  const int64_t passes = kExamples / world.size();
  sharded.measure_importance(passes, kExamples, [&](int64_t i) {
    const auto loss = example_loss(net, &sharded, i * world.size() + world.rank(), 1.0);
    torch::autograd::backward({loss}, {});
  });
  Measured result;
  for (int step = 0; step < 2; ++step) {
    accumulate(net, sharded, world, options, step);
    result.penalty = sharded.finish_gradients(1.0).penalty;
    sharded.update(step + 1, 3e-3);
  }
  for (const StateSlice& slice : sharded.owned_slices()) {
    if (slice.key.starts_with("importance.")) {
      int64_t numel = 1;
      for (const int64_t extent : slice.shape) {
        numel *= extent;
      }
      auto& whole =
          result.importance.try_emplace(slice.key.substr(11), at::zeros({numel})).first->second;
      whole.narrow(0, slice.offset, slice.data.numel()).copy_(slice.data);
    }
  }
  for (const auto& unit : net.units) {
    for (const auto& parameter : unit.parameters) {
      result.weights[parameter->name] = sharded.fetch(*parameter);
    }
  }
  return result;
}

/// Every rank's slices put together.
Measured measure_on(int ranks, const RunOptions& options, int replicas = 1) {
  std::vector<Measured> all(ranks);
  comm::run_local(
      ranks, [&](comm::Group world) { all[world.rank()] = measure(world, options, replicas); });
  for (int rank = 1; rank < ranks; ++rank) {
    for (const auto& [name, values] : all[rank].importance) {
      auto& whole = all[0].importance.try_emplace(name, at::zeros({values.numel()})).first->second;
      whole.add_(values);  // slices do not overlap
    }
    EXPECT_EQ(all[rank].penalty, all[0].penalty);
  }
  return all[0];
}

/// Mean over examples of the squared whole gradient.
std::map<std::string, at::Tensor> plain_importance(bool tied) {
  TinyNet net({.tied = tied});
  tensor::place_whole(net.units, at::kFloat);
  std::map<std::string, at::Tensor> importance;
  for (const auto& unit : net.units) {
    for (const auto& parameter : unit.parameters) {
      const at::NoGradGuard no_grad;
      fill_initial(*parameter, 0, parameter->value.view({-1}));
      importance[parameter->name] = at::zeros({parameter->numel()}, at::kDouble);
    }
  }
  for (int64_t example = 0; example < kExamples; ++example) {
    torch::autograd::backward({example_loss(net, nullptr, example, 1.0)}, {});
    const at::NoGradGuard no_grad;
    for (const auto& unit : net.units) {
      for (const auto& parameter : unit.parameters) {
        const auto grad = parameter->value.grad().to(at::kDouble).view({-1});
        importance[parameter->name].add_(grad * grad / static_cast<double>(kExamples));
        parameter->value.mutable_grad().reset();
      }
    }
  }
  return importance;
}

TEST(Anchor, ImportanceIsTheMeanSquaredGradientOfWholeExamples) {
  for (const bool tied : {true, false}) {
    const auto reference = plain_importance(tied);
    for (const int ranks : {1, 2, 4}) {
      for (const int64_t stage : {0, 1, 2, 3}) {
        const Measured got = measure_on(ranks, options_for(stage, tied));
        for (const auto& [name, values] : reference) {
          const double worst =
              (got.importance.at(name).to(at::kDouble) - values).abs().max().item<double>();
          EXPECT_LT(worst, 1e-5 * values.max().item<double>() + 1e-9)
              << name << " ranks " << ranks << " stage " << stage << " tied " << tied;
        }
      }
    }
    const Measured replicated = measure_on(4, options_for(3, tied), 2);
    const auto& values = reference.at("layers.1.up");
    EXPECT_LT((replicated.importance.at("layers.1.up").to(at::kDouble) - values)
                  .abs()
                  .max()
                  .item<double>(),
              1e-5 * values.max().item<double>());
  }
}

TEST(Anchor, PenaltyAndWeightsAgreeOverStagesAndRanks) {
  const Measured one = measure_on(1, options_for(0, true));
  EXPECT_GT(one.penalty, 0);
  for (const int ranks : {2, 4}) {
    Measured first;
    for (const int64_t stage : {0, 1, 2, 3}) {
      const Measured got = measure_on(ranks, options_for(stage, true));
      EXPECT_NEAR(got.penalty, one.penalty, 1e-4 * one.penalty) << ranks << " " << stage;
      if (stage == 0) {
        first = got;
      }
      for (const auto& [name, weight] : got.weights) {
        EXPECT_TRUE(at::equal(weight, first.weights.at(name))) << name << " stage " << stage;
      }
    }
  }
}

/// The gradient of l2 / 2 |w - start|^2 is what is added: one SGD step without other gradients.
TEST(Anchor, PullIsTheGradientOfThePenalty) {
  RunOptions options;
  options.optim = adamw(1);
  options.optim.algorithm = "sgd";
  options.optim.momentum = 0;
  options.optim.weight_decay = 0;
  options.optim.l2 = 0.25;
  comm::run_local(2, [&](comm::Group world) {
    TinyNet net(options.net);
    ShardedParameters sharded(net.units, groups_of(world, 1), options.optim, at::kFloat);
    sharded.load(fill_initial);
    const at::Tensor start = sharded.fetch(*net.units[1].parameters[1]);
    accumulate(net, sharded, world, options, 0);
    EXPECT_EQ(sharded.finish_gradients(0.0).penalty, 0.0);
    sharded.update(1, 0.5);
    const at::Tensor moved = sharded.fetch(*net.units[1].parameters[1]);

    double squares = 0.0;  // over all parameters
    for (const auto& unit : net.units) {
      for (const auto& parameter : unit.parameters) {
        const at::Tensor now = sharded.fetch(*parameter);
        at::Tensor then = at::empty({parameter->numel()});
        fill_initial(*parameter, 0, then);
        squares += (now.view({-1}) - then).to(at::kDouble).pow(2).sum().item<double>();
      }
    }
    // A step whose own loss has no targets: nothing but the pull.
    sharded.begin_micro_batch(true);
    const Batch batch = batch_of(0, options.net.vocabulary);
    torch::autograd::backward(
        {net.loss(&sharded, batch.tokens, at::full_like(batch.targets, -1), 0.0)}, {});
    EXPECT_NEAR(sharded.finish_gradients(0.0).penalty, 0.25 / 2 * squares, 1e-6 * squares);
    sharded.update(2, 0.5);
    const at::Tensor pulled = sharded.fetch(*net.units[1].parameters[1]);
    const at::Tensor expected = moved - 0.5 * 0.25 * (moved - start);
    EXPECT_LT((pulled - expected).abs().max().item<double>(), 1e-6);
  });
}

TEST(Average, FollowsTheWeightsFromTheStartAtAllStages) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    for (const int64_t stage : {0, 1, 2, 3}) {
      RunOptions options;
      options.optim = adamw(stage);
      options.optim.ema_decay = 0.8;
      options.dtype = dtype;
      comm::run_local(2, [&](comm::Group world) {
        TinyNet net(options.net);
        ShardedParameters sharded(net.units, groups_of(world, 1), options.optim, dtype);
        sharded.load(fill_initial);
        const tensor::Parameter& parameter = *net.units[1].parameters[1];
        at::Tensor average = sharded.fetch(parameter).to(at::kDouble);
        for (int step = 0; step < 5; ++step) {
          accumulate(net, sharded, world, options, step);
          sharded.finish_gradients(1.0);
          sharded.update(step + 1, 3e-3);
          average = average * 0.8 + sharded.fetch(parameter).to(at::kDouble) * 0.2;
        }
        for (const StateSlice& slice : sharded.owned_slices()) {
          if (slice.key == "ema." + parameter.name) {
            const auto expected = average.view({-1}).narrow(0, slice.offset, slice.data.numel());
            EXPECT_LT((slice.data.to(at::kDouble) - expected).abs().max().item<double>(), 1e-6)
                << stage;
          }
        }
      });
    }
  }
}

}  // namespace
}  // namespace kamerton::optim
