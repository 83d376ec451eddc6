// SPDX-License-Identifier: Apache-2.0
// Five steps of each update rule against torch, transformers and bitsandbytes: numbers made by
// tests/tools/make_optimizer_values.py, whose starts and gradients are repeated here.
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <map>
#include <mutex>
#include <sstream>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "kamerton/comm/local_group.h"
#include "kamerton/core/json.h"
#include "kamerton/optim/memory_plan.h"
#include "kamerton/optim/sharded_parameters.h"

#include "apollo.h"
#include "blockwise.h"
#include "muon.h"

namespace kamerton::optim {
namespace {

constexpr int kSteps = 5;
constexpr double kLr = 1e-2;

struct Shape {
  std::string name;
  std::vector<int64_t> shape;
};
const std::vector<Shape> kShapes = {{"layers.0.wide", {24, 40}},
                                    {"layers.0.tall", {96, 48}},
                                    {"layers.0.bias", {40}},
                                    {"embed.table", {70, 64}}};

double wave(int64_t i, double phase, double rate) {
  return std::sin(rate * static_cast<double>(i) + phase);
}

float start(size_t index, int64_t i) {
  return static_cast<float>(wave(i, static_cast<double>(index), 0.37) * 0.5);
}

float gradient(size_t index, int64_t i, int step) {
  const double rough = wave(i, static_cast<double>(index) + 0.7 * step, 0.11);
  return static_cast<float>(rough * std::pow(std::fabs(wave(i, 0.3, 0.0131)), 3) * 0.1);
}

size_t index_of(const std::string& name) {
  for (size_t i = 0; i < kShapes.size(); ++i) {
    if (kShapes[i].name == name) {
      return i;
    }
  }
  return kShapes.size();
}

std::vector<tensor::ParamUnit> make_units() {
  std::vector<tensor::ParamUnit> units = {{0, "embed", {}}, {1, "layers.0", {}}};
  for (const Shape& shape : kShapes) {
    auto parameter = std::make_shared<tensor::Parameter>();
    parameter->name = shape.name;
    parameter->shape = shape.shape;
    units[shape.name.starts_with("embed") ? 0 : 1].parameters.push_back(parameter);
  }
  return units;
}

using Weights = std::map<std::string, at::Tensor>;
using State = std::map<std::string, at::Tensor>;

OptimConfig config_of(const std::string& algorithm, int64_t stage) {
  OptimConfig config;
  config.algorithm = algorithm;
  config.zero_stage = stage;
  config.weight_decay = 0.1;
  config.decay_1d = true;
  config.momentum = 0.95;
  return config;
}

/// Rank 0 brings the gradients.
void step_once(std::vector<tensor::ParamUnit>& units,
               ShardedParameters& sharded,
               const comm::Group& world,
               int step) {
  sharded.begin_micro_batch(true);
  for (const int unit : {1, 0}) {
    sharded.before_forward(unit);
    sharded.after_forward(unit);
  }
  for (const int unit : {1, 0}) {
    sharded.before_backward(unit);
    for (const auto& parameter : units[static_cast<size_t>(unit)].parameters) {
      auto* data = parameter->gradient.data_ptr<float>();
      for (int64_t i = 0; i < parameter->numel() && world.rank() == 0; ++i) {
        data[i] = gradient(index_of(parameter->name), i, step);
      }
    }
    sharded.after_backward(unit);
  }
  sharded.finish_gradients(0.0);
  sharded.update(step + 1, kLr);
}

struct Result {
  Weights weights;
  State state;
  ShardedBytes bytes;
};

/// Steps [first, last), from `from` when given.
Result train(int ranks, const OptimConfig& config, int first, int last, const State* from) {
  Result result;
  std::mutex mutex;
  comm::run_local(ranks, [&](comm::Group world) {
    std::vector<tensor::ParamUnit> units = make_units();
    ShardedParameters sharded(units, {world, comm::Group()}, config, at::kFloat);
    sharded.load([](const tensor::Parameter& parameter, int64_t offset, at::Tensor out) {
      for (int64_t i = 0; i < out.numel(); ++i) {
        out.data_ptr<float>()[i] = start(index_of(parameter.name), offset + i);
      }
    });
    if (from != nullptr) {
      for (auto slice : sharded.slices_to_load()) {
        slice.data.copy_(from->at(slice.key).narrow(0, slice.offset, slice.data.numel()));
      }
      sharded.after_load();
    }
    for (int step = first; step < last; ++step) {
      step_once(units, sharded, world, step);
    }
    Weights weights;
    for (const auto& unit : units) {
      for (const auto& parameter : unit.parameters) {
        weights[parameter->name] = sharded.fetch(*parameter).view({-1});
      }
    }
    const std::lock_guard lock(mutex);
    for (const StateSlice& slice : sharded.owned_slices()) {
      int64_t numel = 1;
      for (const int64_t extent : slice.shape) {
        numel *= extent;
      }
      result.state.try_emplace(slice.key, at::zeros({numel}, slice.data.options()))
          .first->second.narrow(0, slice.offset, slice.data.numel())
          .copy_(slice.data);
    }
    if (world.rank() == 0) {
      result.weights = weights;
      result.bytes = sharded.bytes();
    }
  });
  return result;
}

core::Json reference() {
  const char* source = std::getenv("KAMERTON_SOURCE_DIR");
  std::ifstream file(std::string(source == nullptr ? "." : source) +
                     "/tests/unit/optim/optimizer_values.json");
  std::stringstream text;
  text << file.rdbuf();
  return core::parse_json(text.str(), "optimizer_values.json");
}

void expect_near(const Weights& weights, const core::Json& expected, double tolerance) {
  for (const auto& [name, values] : expected.items()) {
    const at::Tensor& got = weights.at(name);
    for (size_t i = 0; i < values.size(); ++i) {
      EXPECT_NEAR(
          got[static_cast<int64_t>(i) * 37].item<double>(), values[i].get<double>(), tolerance)
          << name << " " << i;
    }
  }
}

bool same(const Weights& a, const Weights& b) {
  bool equal = true;
  for (const auto& [name, weight] : a) {
    equal = equal && at::equal(weight, b.at(name));
  }
  return equal;
}

struct Case {
  const char* name;  ///< in the file
  const char* algorithm;
  double tolerance;
  void (*change)(OptimConfig&);
};

void nothing(OptimConfig&) {}
void unscaled(OptimConfig& config) {
  config.scale_by_weights = false;
}
void original(OptimConfig& config) {
  config.muon_scale = "original";
}

void few_dimensions(OptimConfig& config) {
  config.apollo_rank = 4;
}

const Case kCases[] = {{"adamw", "adamw", 1e-6, nothing},
                       {"adafactor", "adafactor", 1e-6, nothing},
                       {"adafactor_unscaled", "adafactor", 1e-6, unscaled},
                       // A second moment that rounds to little makes steps as large as the weights.
                       {"adamw8bit", "adamw8bit", 1e-5, nothing},
                       {"muon", "muon", 1e-5, nothing},
                       {"muon_original", "muon", 1e-5, original}};

class OptimizerValues : public testing::TestWithParam<Case> {};
class OptimizerState : public testing::TestWithParam<Case> {};

TEST_P(OptimizerValues, EqualTheReferenceLibraryAtEveryStageAndOnEveryNumberOfRanks) {
  const core::Json expected = reference();
  for (const int ranks : {1, 2, 4}) {
    Result first;
    for (const int64_t stage : {0, 1, 2, 3}) {
      OptimConfig config = config_of(GetParam().algorithm, stage);
      GetParam().change(config);
      const Result result = train(ranks, config, 0, kSteps, nullptr);
      expect_near(result.weights, expected[GetParam().name], GetParam().tolerance);
      if (stage == 0) {
        first = result;
      }
      EXPECT_TRUE(same(result.weights, first.weights)) << ranks << " ranks, stage " << stage;
    }
  }
}

TEST_P(OptimizerState, ResumesWithTheSameBitsOnTheSameAndOtherRanks) {
  OptimConfig config = config_of(GetParam().algorithm, 1);
  GetParam().change(config);
  const Result whole = train(2, config, 0, kSteps, nullptr);
  const Result half = train(2, config, 0, 2, nullptr);
  EXPECT_TRUE(same(train(2, config, 2, kSteps, &half.state).weights, whole.weights));
  config.zero_stage = 3;
  const Result moved = train(4, config, 2, kSteps, &half.state);
  for (const auto& [name, weight] : moved.weights) {
    EXPECT_LT((weight - whole.weights.at(name)).abs().max().item<double>(), 1e-5) << name;
  }
}

TEST_P(OptimizerState, HasThePlannedBytes) {
  for (const int64_t stage : {0, 2}) {
    PlanRequest request;
    request.units = make_units();
    request.optim = config_of(GetParam().algorithm, stage);
    request.shard = 2;
    const Result result = train(2, request.optim, 0, 1, nullptr);
    const MemoryPlan plan = plan_memory(request);
    EXPECT_EQ(plan.optimizer_state, result.bytes.optimizer_state) << stage;
    EXPECT_EQ(plan.gradients, result.bytes.gradients) << stage;
    EXPECT_EQ(plan.parameters, result.bytes.parameters) << stage;
  }
}

std::string name_of(const testing::TestParamInfo<Case>& info) {
  return info.param.name;
}

INSTANTIATE_TEST_SUITE_P(Rules, OptimizerValues, testing::ValuesIn(kCases), name_of);
INSTANTIATE_TEST_SUITE_P(Rules, OptimizerState, testing::ValuesIn(kCases), name_of);
INSTANTIATE_TEST_SUITE_P(RulesByFormula,
                         OptimizerState,
                         testing::Values(Case{"apollo", "apollo", 0, few_dimensions}),
                         name_of);

/// APOLLO as apollo-torch has it, on whole matrices in double, with the same random matrices.
at::Tensor apollo_by_formula(const OptimConfig& config, const std::string& name) {
  const size_t index = index_of(name);
  const auto& shape = kShapes[index].shape;
  const bool wide = shape[0] < shape[1];
  at::Tensor weight = at::empty({shape[0] * shape[1]}, at::kDouble);
  for (int64_t i = 0; i < weight.numel(); ++i) {
    weight[i] = start(index, i);
  }
  weight = weight.view(shape);
  at::Tensor first;
  at::Tensor second;
  double last = 0.0;
  for (int step = 0; step < kSteps; ++step) {
    at::Tensor grad = at::empty({weight.numel()}, at::kDouble);
    for (int64_t i = 0; i < grad.numel(); ++i) {
      grad[i] = gradient(index, i, step);
    }
    grad = grad.view(shape);
    const at::Tensor random = random_projection(name,
                                                step / config.apollo_update_gap,
                                                config.apollo_rank,
                                                0,
                                                std::min(shape[0], shape[1]))
                                  .to(at::kDouble);
    const at::Tensor low = at::mm(random, wide ? grad : grad.t());  // [rank, channels]
    first = step == 0 ? low * 0.1 : first * 0.9 + low * 0.1;
    second = step == 0 ? low * low * 0.001 : second * 0.999 + low * low * 0.001;
    const at::Tensor normed = first / (second.sqrt() + config.eps);
    at::Tensor scaled;
    if (config.apollo_scale_type == "tensor") {
      scaled = grad * (normed.norm() / (low.norm() + 1e-8));
    } else {
      const at::Tensor by_channel = normed.norm(2, 0) / (low.norm(2, 0) + 1e-8);
      scaled = grad * (wide ? by_channel.unsqueeze(0) : by_channel.unsqueeze(1));
    }
    const auto norm = scaled.norm().item<double>();
    const double limiter = step == 0 ? 1.0 : std::max(norm / (last + 1e-8), 1.01) / 1.01;
    last = norm / limiter;
    const double t = step + 1;
    const double lr = kLr * std::sqrt(1 - std::pow(0.999, t)) / (1 - std::pow(0.9, t));
    weight = weight - scaled * (lr / limiter * std::sqrt(config.apollo_scale));
    weight = weight * (1 - kLr * config.weight_decay);
  }
  return weight.view({-1});
}

TEST(Apollo, FollowsItsFormulaAtEveryStageAndOnEveryNumberOfRanks) {
  const core::Json adamw = reference()["adamw"];
  for (const std::string type : {"channel", "tensor"}) {
    OptimConfig config = config_of("apollo", 0);
    config.apollo_rank = type == "tensor" ? 1 : 8;
    config.apollo_scale_type = type;
    config.apollo_scale = type == "tensor" ? 16.0 : 1.0;
    config.apollo_update_gap = 2;
    for (const int ranks : {1, 2, 4}) {
      Result first;
      for (const int64_t stage : {0, 1, 2, 3}) {
        config.zero_stage = stage;
        const Result result = train(ranks, config, 0, kSteps, nullptr);
        for (const std::string name : {"layers.0.wide", "layers.0.tall"}) {
          const at::Tensor expected = apollo_by_formula(config, name);
          const at::Tensor got = result.weights.at(name).to(at::kDouble);
          EXPECT_LT((got - expected).abs().max().item<double>(), 1e-5) << name << " " << type;
        }
        for (const std::string name : {"layers.0.bias", "embed.table"}) {
          expect_near({{name, result.weights.at(name)}}, {{name, adamw[name]}}, 1e-6);
        }
        first = stage == 0 ? result : first;
        EXPECT_TRUE(same(result.weights, first.weights)) << ranks << " ranks, stage " << stage;
      }
    }
  }
}

TEST(Apollo, RandomMatricesAreTheSameInPartsAndHaveVarianceOneOverRank) {
  const at::Tensor whole = random_projection("a", 3, 16, 0, 4096);
  EXPECT_TRUE(at::equal(whole.narrow(1, 100, 50), random_projection("a", 3, 16, 100, 50)));
  EXPECT_NEAR(whole.var().item<double>() * 16, 1.0, 0.02);
  EXPECT_NEAR(whole.mean().item<double>(), 0.0, 0.005);
  EXPECT_FALSE(at::equal(whole, random_projection("a", 4, 16, 0, 4096)));
  EXPECT_FALSE(at::equal(whole, random_projection("b", 3, 16, 0, 4096)));
}

TEST(OptimizerValues, RulesThatSaveMemoryDo) {
  const auto state = [](const std::string& algorithm) {
    OptimConfig config = config_of(algorithm, 0);
    config.apollo_rank = 4;
    return train(1, config, 0, 1, nullptr).bytes.optimizer_state;
  };
  const int64_t adamw = state("adamw");
  EXPECT_LT(state("adamw8bit"), adamw * 3 / 10);
  EXPECT_LT(state("adafactor"), adamw / 10);
  EXPECT_LT(state("apollo"), adamw);         // the table is AdamW's here
  EXPECT_LT(state("muon"), adamw * 8 / 10);  // the table is AdamW's here
}

TEST(DynamicCode, IsThatOfBitsandbytes) {
  const core::Json expected = reference()["codes"];
  for (const bool with_sign : {true, false}) {
    const DynamicCode& code = with_sign ? DynamicCode::with_sign() : DynamicCode::without_sign();
    for (int i = 0; i < 256; ++i) {
      const double value = expected[with_sign ? "signed" : "unsigned"][i].get<double>();
      EXPECT_EQ(code.value(static_cast<uint8_t>(i)), static_cast<float>(value)) << i;
    }
  }
}

TEST(DynamicCode, FindsTheNearestValue) {
  for (const bool with_sign : {true, false}) {
    const DynamicCode& code = with_sign ? DynamicCode::with_sign() : DynamicCode::without_sign();
    for (int i = 0; i <= 20000; ++i) {
      const auto x = static_cast<float>(with_sign ? i / 10000.0 - 1.0 : std::pow(i / 20000.0, 4));
      const float found = std::fabs(code.value(code.code(x)) - x);
      for (int other = 0; other < 256; ++other) {
        ASSERT_LE(found, std::fabs(code.value(static_cast<uint8_t>(other)) - x) + 6e-8)
            << x;  // half a float's last place of the middle
      }
    }
    for (int i = 0; i < 256; ++i) {
      EXPECT_EQ(code.code(code.value(static_cast<uint8_t>(i))), i);
    }
  }
}

TEST(Muon, OrthogonalDirectionsHaveSingularValuesNearOne) {
  for (const auto& [rows, columns] :
       std::vector<std::pair<int64_t, int64_t>>{{20, 50}, {50, 20}, {30, 30}}) {
    const at::Tensor matrix =
        at::arange(rows * columns, at::kFloat).mul(1.7).sin().view({rows, columns}) +
        at::eye(rows, columns);
    const at::Tensor x = orthogonalise(matrix).to(at::kDouble);
    EXPECT_EQ(x.sizes(), matrix.sizes());
    EXPECT_LT(x.norm().item<double>(), 1.3 * std::sqrt(std::min(rows, columns)));
    EXPECT_GT(x.norm().item<double>(), 0.5);
  }
}

TEST(Muon, SharesMatricesOutByCost) {
  EXPECT_THAT(share_out({{8, 8}, {64, 64}, {32, 32}, {32, 32}}, 2),
              testing::ElementsAre(1, 0, 1, 1));
  EXPECT_THAT(share_out({{8, 8}, {8, 8}}, 1), testing::ElementsAre(0, 0));
}

}  // namespace
}  // namespace kamerton::optim
