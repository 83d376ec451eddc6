// SPDX-License-Identifier: Apache-2.0
// Each rule beside its formula in float64, written out here, over several rounds.
#include "kamerton/federation/server_optimizer.h"

#include <cmath>
#include <functional>

#include <gtest/gtest.h>

#include "kamerton/core/random.h"

namespace kamerton::federation {
namespace {

constexpr size_t kSize = 200;
constexpr int64_t kRounds = 12;

struct Truth {
  double x = 0;
  double m = 0;
  double v = 0;
};

/// Largest distance from `formula` after all rounds, over the largest value.
double distance(const FederationConfig& config,
                double v0,
                const std::function<void(Truth&, double d, double round)>& formula) {
  const ServerOptimizer optimizer(config);
  std::vector<Truth> truth(kSize, Truth{0, 0, v0});
  std::vector<float> x(kSize, 0.0F);
  std::vector<float> m(kSize, 0.0F);
  std::vector<float> v(kSize, optimizer.initial_second_moment());
  for (int64_t round = 1; round <= kRounds; ++round) {
    const core::RandomStream random(5, "test.server", static_cast<uint64_t>(round));
    std::vector<double> d(kSize);
    for (size_t i = 0; i < kSize; ++i) {
      d[i] = 0.01 * random.normal(i);
      formula(truth[i], d[i], static_cast<double>(round));
    }
    optimizer.step(round, d, x, m, v);
  }
  double gap = 0;
  double largest = 0;
  for (size_t i = 0; i < kSize; ++i) {
    gap = std::max(gap, std::fabs(x[i] - truth[i].x));
    largest = std::max(largest, std::fabs(truth[i].x));
  }
  EXPECT_GT(largest, 1e-3);
  return gap / largest;
}

FederationConfig method(const std::string& name) {
  FederationConfig config;
  config.method = name;
  return config;
}

TEST(ServerOptimizer, AveragingTakesTheWholeStep) {
  EXPECT_LT(distance(method("fedavg"), 0, [](Truth& t, double d, double) { t.x += d; }), 1e-6);
}

TEST(ServerOptimizer, MomentumGathersUpdates) {
  const auto rule = [](Truth& t, double d, double) {
    t.m = 0.9 * t.m + d;
    t.x += t.m;
  };
  EXPECT_LT(distance(method("fedavgm"), 0, rule), 1e-6);
}

TEST(ServerOptimizer, NesterovLooksAheadAsTorchDoes) {
  const auto rule = [](Truth& t, double d, double) {  // torch.optim.SGD on the gradient -d
    t.m = 0.9 * t.m - d;
    t.x -= 0.7 * (-d + 0.9 * t.m);
  };
  EXPECT_LT(distance(method("diloco"), 0, rule), 1e-6);
}

TEST(ServerOptimizer, AdamFollowsThePaper) {
  const auto rule = [](Truth& t, double d, double) {
    t.m = 0.9 * t.m + 0.1 * d;
    t.v = 0.99 * t.v + 0.01 * d * d;
    t.x += 0.1 * t.m / (std::sqrt(t.v) + 1e-3);
  };
  EXPECT_LT(distance(method("fedadam"), 1e-6, rule), 1e-5);
}

TEST(ServerOptimizer, AdamMayFollowFlower) {
  FederationConfig config = method("fedadam");
  config.server.initial_v = "zero";
  config.server.bias_correction = true;
  const auto rule = [](Truth& t, double d, double round) {
    t.m = 0.9 * t.m + 0.1 * d;
    t.v = 0.99 * t.v + 0.01 * d * d;
    const double lr =
        0.1 * std::sqrt(1 - std::pow(0.99, round + 1)) / (1 - std::pow(0.9, round + 1));
    t.x += lr * t.m / (std::sqrt(t.v) + 1e-3);
  };
  EXPECT_LT(distance(config, 0, rule), 1e-5);
}

TEST(ServerOptimizer, YogiMovesItsSecondMomentByTheSign) {
  const auto rule = [](Truth& t, double d, double) {
    t.m = 0.9 * t.m + 0.1 * d;
    const double gap = t.v - d * d;
    t.v -= 0.01 * d * d * (gap > 0 ? 1 : gap < 0 ? -1 : 0);
    t.x += 0.01 * t.m / (std::sqrt(t.v) + 1e-3);
  };
  EXPECT_LT(distance(method("fedyogi"), 1e-6, rule), 1e-5);
}

TEST(ServerOptimizer, AdagradAddsSquares) {
  const auto rule = [](Truth& t, double d, double) {
    t.m = 0.9 * t.m + 0.1 * d;
    t.v += d * d;
    t.x += 0.1 * t.m / (std::sqrt(t.v) + 1e-3);
  };
  EXPECT_LT(distance(method("fedadagrad"), 1e-6, rule), 1e-5);
}

TEST(ServerOptimizer, RangesMayBeDoneApart) {
  const ServerOptimizer optimizer(method("fedadam"));
  std::vector<double> d(kSize);
  for (size_t i = 0; i < kSize; ++i) {
    d[i] = std::sin(static_cast<double>(i));
  }
  std::vector<std::vector<float>> whole(3, std::vector<float>(kSize, 0.5F));
  auto parts = whole;
  optimizer.step(1, d, whole[0], whole[1], whole[2]);
  for (const auto& [begin, count] : {std::pair<size_t, size_t>{150, 50}, {0, 150}}) {
    std::vector<std::span<float>> cut;
    for (auto& part : parts) {
      cut.push_back(std::span(part).subspan(begin, count));
    }
    optimizer.step(1, std::span<const double>(d).subspan(begin, count), cut[0], cut[1], cut[2]);
  }
  EXPECT_EQ(whole, parts);
}

}  // namespace
}  // namespace kamerton::federation
