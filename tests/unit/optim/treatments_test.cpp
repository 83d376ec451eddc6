// SPDX-License-Identifier: Apache-2.0
#include "treatments.h"

#include <cmath>

#include <gmock/gmock.h>

#include "kamerton/comm/local_group.h"

#include "support/expect_error.h"
#include "unit/optim/tiny_net.h"

namespace kamerton::optim {
namespace {

using namespace testing;

const tensor::Parameter& find(const TinyNet& net, const std::string& name, int& unit) {
  for (const auto& one : net.units) {
    for (const auto& parameter : one.parameters) {
      if (parameter->name == name) {
        unit = one.index;
        return *parameter;
      }
    }
  }
  throw std::runtime_error("no " + name);
}

Treatment treatment(const OptimConfig& config, const TinyNet& net, const std::string& name) {
  int unit = 0;
  const tensor::Parameter& parameter = find(net, name, unit);
  return Treatments(config, net.units).of(net.units[static_cast<size_t>(unit)], parameter);
}

TEST(Treatments, LayersFurtherFromTheHeadLearnMoreSlowly) {
  OptimConfig config;
  config.layer_decay = 0.5;
  for (const bool tied : {true, false}) {
    const TinyNet net({.tied = tied});
    EXPECT_DOUBLE_EQ(treatment(config, net, "layers.2.up").lr_ratio, 0.5);
    EXPECT_DOUBLE_EQ(treatment(config, net, "layers.0.up").lr_ratio, 0.125);
    EXPECT_DOUBLE_EQ(treatment(config, net, "embed.weight").lr_ratio, 0.0625);
  }
  EXPECT_DOUBLE_EQ(treatment(config, TinyNet({.tied = false}), "head.weight").lr_ratio, 1.0);
}

TEST(Treatments, TheLastGroupThatMatchesCounts) {
  OptimConfig config;
  config.weight_decay = 0.1;
  config.groups = {{.match = ".*up.*", .lr_ratio = 2, .weight_decay = 0.3},
                   {.match = "layers\\.1\\..*", .lr_ratio = 4, .weight_decay = {}}};
  const TinyNet net({});
  EXPECT_EQ(treatment(config, net, "layers.0.up"), (Treatment{2.0, 0.3, 0}));
  EXPECT_EQ(treatment(config, net, "layers.1.up"), (Treatment{4.0, 0.1, 0}));
  EXPECT_EQ(treatment(config, net, "layers.1.norm"), (Treatment{4.0, 0.0, 0}));
  EXPECT_EQ(treatment(config, net, "layers.2.down"), (Treatment{1.0, 0.1, 0}));
}

TEST(Treatments, RatiosOfTheTuningMethodComeOnTop) {
  OptimConfig config;
  config.groups = {{.match = ".*up.*", .lr_ratio = 2, .weight_decay = {}}};
  config.method_groups = {{.match = "layers\\.0\\..*", .lr_ratio = 16, .weight_decay = {}},
                          {.match = "matches nothing", .lr_ratio = 3, .weight_decay = {}}};
  const TinyNet net({});
  EXPECT_DOUBLE_EQ(treatment(config, net, "layers.0.up").lr_ratio, 32);
  EXPECT_DOUBLE_EQ(treatment(config, net, "layers.0.down").lr_ratio, 16);
  EXPECT_DOUBLE_EQ(treatment(config, net, "layers.1.up").lr_ratio, 2);
}

TEST(Treatments, RefuseAPatternThatMatchesNothingAndNameNearOnes) {
  OptimConfig config;
  config.groups = {{.match = "layers.9.up", .lr_ratio = 2, .weight_decay = {}}};
  test::expect_error(core::ErrorKind::Config, {"layers.9.up", "layers.0.down"}, [&] {
    Treatments(config, TinyNet({}).units);
  });
  config.groups[0].match = "(";
  test::expect_error(core::ErrorKind::Config, {"regular expression"}, [&] {
    Treatments(config, TinyNet({}).units);
  });
}

RunResult train_on(int ranks, const RunOptions& options) {
  std::vector<RunResult> results(ranks);
  comm::run_local(ranks, [&](comm::Group world) { results[world.rank()] = train(world, options); });
  return results[0];
}

TEST(Treatments, AGroupOfRatioZeroStaysWhileOthersLearnAtAllStages) {
  RunOptions options;
  options.optim = adamw(0);
  options.optim.groups = {{.match = ".*\\.down", .lr_ratio = 0, .weight_decay = {}}};
  options.optim.layer_decay = 0.9;
  const RunResult first = train_on(2, options);
  EXPECT_LT(first.losses.back(), first.losses.front());
  for (int64_t i = 0; i < 20; ++i) {
    EXPECT_EQ(first.weights.at("layers.1.down").view({-1})[i].item<float>(),
              TinyNet::initial("layers.1.down", i, 2));
  }
  EXPECT_NE(first.weights.at("layers.1.up").view({-1})[0].item<float>(),
            TinyNet::initial("layers.1.up", 0, 2));
  for (const int64_t stage : {1, 2, 3}) {
    options.optim.zero_stage = stage;
    EXPECT_TRUE(same_bits(train_on(2, options), first)) << stage;
  }
}

}  // namespace
}  // namespace kamerton::optim
