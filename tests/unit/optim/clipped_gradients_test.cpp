// SPDX-License-Identifier: Apache-2.0
// Clipping example by example against the naive loop: plain autograd, one example at a time.
#include <cmath>
#include <mutex>

#include <gtest/gtest.h>

#include "kamerton/comm/local_group.h"
#include "kamerton/core/error.h"
#include "kamerton/privacy/normal_stream.h"

#include "unit/optim/tiny_net.h"

namespace kamerton::optim {
namespace {

using namespace testing;

constexpr double kBound = 0.7;
constexpr int64_t kExamples = 12;
constexpr int64_t kTokens = kRows / kExamples;

/// Adds element-wise noise from the parameter's name and index; counts calls.
void noise_of(const tensor::Parameter& parameter, int64_t offset, at::Tensor out) {
  privacy::NormalStream(privacy::Secret(), "test", 3, parameter.name)
      .add(static_cast<uint64_t>(offset),
           0.05,
           {out.data_ptr<float>(), static_cast<size_t>(out.numel())});
}
void no_noise(const tensor::Parameter&, int64_t, at::Tensor) {}

struct Result {
  std::map<std::string, at::Tensor> weights;
  std::vector<double> norms;  ///< by example
  double norm = 0;
};

OptimConfig sgd_config(int64_t stage) {
  OptimConfig config;
  config.algorithm = "sgd";
  config.momentum = 0;
  config.weight_decay = 0;
  config.zero_stage = stage;
  config.schedule = "constant";
  config.warmup_steps = 0;
  return config;
}

at::Tensor example_loss(TinyNet& net,
                        tensor::UnitHooks* hooks,
                        const Batch& batch,
                        int64_t example) {
  return net.loss(hooks,
                  batch.tokens.narrow(0, example * kTokens, kTokens),
                  batch.targets.narrow(0, example * kTokens, kTokens),
                  1.0);
}

/// The definition: each example's gradient by plain autograd, scaled, summed in double.
Result naive(const NetOptions& options, bool noisy) {
  TinyNet net(options);
  tensor::place_whole(net.units, at::kFloat);
  std::vector<tensor::ParameterPtr> trained;
  Result result;
  for (const auto& unit : net.units) {
    for (const auto& parameter : unit.parameters) {
      const at::NoGradGuard no_grad;
      fill_initial(*parameter, 0, parameter->value.view({-1}));
      if (parameter->trainable) {
        trained.push_back(parameter);
      }
    }
  }
  const Batch batch = batch_of(0, options.vocabulary);
  std::vector<at::Tensor> sums(trained.size());
  for (int64_t example = 0; example < kExamples; ++example) {
    torch::autograd::backward({example_loss(net, nullptr, batch, example)}, {});
    double squares = 0;
    for (const auto& parameter : trained) {
      squares += parameter->value.grad().to(at::kDouble).pow(2).sum().item<double>();
    }
    result.norms.push_back(std::sqrt(squares));
    const double factor = std::min(1.0, kBound / std::sqrt(squares));
    for (size_t i = 0; i < trained.size(); ++i) {
      const at::Tensor scaled = trained[i]->value.grad().to(at::kDouble) * factor;
      sums[i] = sums[i].defined() ? sums[i] + scaled : scaled;
      trained[i]->value.mutable_grad().reset();
    }
  }
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < trained.size(); ++i) {
    at::Tensor sum = sums[i].to(at::kFloat).contiguous();
    if (noisy) {
      noise_of(*trained[i], 0, sum.view({-1}));
    }
    result.weights[trained[i]->name] = trained[i]->value.detach() - sum / kExamples;
  }
  return result;
}

Result clipped(int ranks, int64_t stage, const NetOptions& options, bool noisy, int replicas = 1) {
  Result result;
  std::mutex mutex;
  comm::run_local(ranks, [&](comm::Group world) {
    TinyNet net(options);
    ShardedParameters sharded(net.units, groups_of(world, replicas), sgd_config(stage), at::kFloat);
    sharded.load(fill_initial);
    const Batch batch = batch_of(0, options.vocabulary);
    std::vector<double> norms;
    for (int64_t example = world.rank(); example < kExamples; example += world.size()) {
      sharded.begin_example();
      torch::autograd::backward({example_loss(net, &sharded, batch, example)}, {});
      norms.push_back(sharded.add_clipped_example(kBound));
    }
    const GradientReport report =
        sharded.finish_clipped(noisy ? noise_of : no_noise, 1.0 / kExamples, 0.0);
    EXPECT_TRUE(report.finite);
    sharded.update(1, 1.0);
    for (const auto& unit : net.units) {
      for (const auto& parameter : unit.parameters) {
        const at::Tensor whole = sharded.fetch(*parameter).clone();
        const std::lock_guard lock(mutex);
        const auto [at, fresh] = result.weights.emplace(parameter->name, whole);
        EXPECT_TRUE(fresh || at::equal(at->second, whole)) << "ranks differ";
      }
    }
    const std::lock_guard lock(mutex);
    result.norm = report.norm;
    result.norms.resize(kExamples);
    for (size_t i = 0; i < norms.size(); ++i) {
      result.norms[world.rank() + i * world.size()] = norms[i];
    }
  });
  return result;
}

void expect_same(const Result& run, const Result& reference, const std::string& what) {
  for (size_t i = 0; i < reference.norms.size(); ++i) {
    EXPECT_NEAR(run.norms[i], reference.norms[i], 1e-5 * reference.norms[i]) << what;
  }
  for (const auto& [name, weight] : reference.weights) {
    EXPECT_LT((run.weights.at(name) - weight).abs().max().item<double>(), 3e-6)
        << what << ", " << name;
  }
}

TEST(ClippedGradients, EveryStageAndWorldSizeEqualsTheNaiveLoop) {
  for (const bool tied : {true, false}) {
    const NetOptions options{.tied = tied};
    const Result reference = naive(options, false);
    int cut = 0;
    for (const double norm : reference.norms) {
      cut += norm > kBound ? 1 : 0;
    }
    EXPECT_GT(cut, 0);
    for (const int ranks : {1, 2, 4}) {
      for (const int64_t stage : {0, 1, 2, 3}) {
        expect_same(clipped(ranks, stage, options, false),
                    reference,
                    std::to_string(ranks) + " ranks, stage " + std::to_string(stage));
      }
    }
  }
}

TEST(ClippedGradients, AdaptersEqualTheNaiveLoop) {
  const NetOptions options{.adapters = true};
  const Result reference = naive(options, false);
  for (const int64_t stage : {0, 2, 3}) {
    expect_same(clipped(3, stage, options, false), reference, "stage " + std::to_string(stage));
  }
}

TEST(ClippedGradients, RecomputationAndReplicasChangeNothing) {
  const Result reference = naive({}, false);
  expect_same(clipped(2, 3, {.checkpoint = true}, false), reference, "recomputed");
  for (const int64_t stage : {0, 1, 2, 3}) {
    expect_same(clipped(4, stage, {}, false, 2), reference, "replicas");
  }
}

TEST(ClippedGradients, NoiseIsAddedOnceWhateverTheRanks) {
  const Result reference = naive({}, true);
  for (const int ranks : {1, 2, 4}) {
    for (const int64_t stage : {0, 1, 2, 3}) {
      expect_same(clipped(ranks, stage, {}, true),
                  reference,
                  std::to_string(ranks) + " ranks, stage " + std::to_string(stage));
    }
  }
  expect_same(clipped(4, 3, {}, true, 2), reference, "replicas");
}

TEST(ClippedGradients, AnExampleThatIsNoNumberAddsNothing) {
  const NetOptions options;
  const auto run = [&](bool poisoned) {
    TinyNet net(options);
    at::Tensor weights;
    comm::run_local(1, [&](comm::Group world) {
      ShardedParameters sharded(net.units, groups_of(world, 1), sgd_config(0), at::kFloat);
      sharded.load(fill_initial);
      const Batch batch = batch_of(0, options.vocabulary);
      for (int64_t example = 0; example < 3; ++example) {
        if (example == 1 && !poisoned) {
          continue;
        }
        sharded.begin_example();
        const double scale = example == 1 ? std::nan("") : 1.0;
        torch::autograd::backward({example_loss(net, &sharded, batch, example) * scale}, {});
        EXPECT_EQ(std::isfinite(sharded.add_clipped_example(kBound)), example != 1);
      }
      EXPECT_TRUE(sharded.finish_clipped(no_noise, 1.0, 0.0).finite);
      sharded.update(1, 0.1);
      weights = sharded.fetch(*net.units[1].parameters[1]).clone();
    });
    return weights;
  };

  EXPECT_TRUE(at::equal(run(true), run(false)));
}

TEST(ClippedGradients, OneExampleMovesTheSumByAtMostTheBound) {
  // The sensitivity itself: with and without one example.
  const NetOptions options;
  const auto sum_over = [&](int64_t examples) {
    std::map<std::string, at::Tensor> weights;
    comm::run_local(1, [&](comm::Group world) {
      TinyNet net(options);
      ShardedParameters sharded(net.units, groups_of(world, 1), sgd_config(0), at::kFloat);
      sharded.load(fill_initial);
      const Batch batch = batch_of(0, options.vocabulary);
      for (int64_t example = 0; example < examples; ++example) {
        sharded.begin_example();
        torch::autograd::backward({example_loss(net, &sharded, batch, example) * 100.0}, {});
        sharded.add_clipped_example(kBound);
      }
      sharded.finish_clipped(no_noise, 1.0, 0.0);
      sharded.update(1, 1.0);
      for (const auto& unit : net.units) {
        for (const auto& parameter : unit.parameters) {
          weights[parameter->name] = sharded.fetch(*parameter).to(at::kDouble);
        }
      }
    });
    return weights;
  };
  const auto with = sum_over(5);
  const auto without = sum_over(4);
  double squares = 0;
  for (const auto& [name, weight] : with) {
    squares += (weight - without.at(name)).pow(2).sum().item<double>();
  }

  EXPECT_LE(std::sqrt(squares), kBound * (1 + 1e-4));  // weights are rounded to float
  EXPECT_GT(std::sqrt(squares), kBound * 0.99);
}

}  // namespace
}  // namespace kamerton::optim
