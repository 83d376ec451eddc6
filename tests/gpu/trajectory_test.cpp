// SPDX-License-Identifier: Apache-2.0
// Twenty steps of a small random Llama on the device beside the CPU, whole and sharded.
#include <cmath>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include "kamerton/model/generate.h"
#include "kamerton/model/weights.h"
#include "kamerton/optim/sharded_parameters.h"

#include "gpu_device.h"
#include "mirror_group.h"

namespace kamerton::test {
namespace {

constexpr const char* kConfig =
    R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 320,
"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 4,
"num_key_value_heads": 2, "max_position_embeddings": 256, "rms_norm_eps": 1e-6,
"tie_word_embeddings": TIED})";

struct Setting {
  std::string device = "cpu";
  std::string dtype = "fp32";
  int64_t stage = 0;
  std::string algorithm = "adamw";
  bool checkpointing = false;
  bool tied = true;
};

std::unique_ptr<model::Decoder> make_decoder(const Setting& setting) {
  std::string text = kConfig;
  text.replace(text.find("TIED"), 4, setting.tied ? "true" : "false");
  model::ModelOptions options;
  options.random_init = true;
  options.device = setting.device;
  options.dtype = setting.dtype;
  options.activation_checkpointing = setting.checkpointing ? "block" : "none";
  return std::make_unique<model::Decoder>(model::parse_config(text, "test"), options);
}

/// Documents of different lengths that hold a pattern to be learnt.
std::vector<std::vector<int64_t>> documents() {
  std::vector<std::vector<int64_t>> all;
  for (const int64_t length : {40, 40, 17, 64}) {
    std::vector<int64_t> document;
    for (int64_t i = 0; i < length; ++i) {
      document.push_back((i * 37 + length) % 320);
    }
    all.push_back(document);
  }
  return all;
}

/// Losses and gradient norms of 20 steps of two micro-batches.
std::vector<double> train(const Setting& setting) {
  const auto decoder = make_decoder(setting);
  const comm::Group shard =
      setting.stage == 0 ? comm::Group() : comm::Group(std::make_shared<MirrorGroup>());
  optim::OptimConfig config;
  config.zero_stage = setting.stage;
  config.algorithm = setting.algorithm;
  config.momentum = 0.9;
  config.weight_decay = 0.1;
  optim::ShardedParameters engine(
      decoder->units(), {shard, comm::Group()}, config, decoder->dtype(), decoder->device());
  model::ModelOptions source;
  source.random_init = true;
  const auto weights = model::open_weights(source, *decoder);
  engine.load([&](const tensor::Parameter& parameter, int64_t offset, at::Tensor out) {
    weights->read(parameter, offset, out);
  });
  decoder->set_hooks(&engine);
  const model::Rows rows = model::Rows::from_documents(documents());
  const at::Tensor targets = at::roll(rows.tokens_N, -1);
  std::vector<double> figures;
  for (int64_t update = 1; update <= 20; ++update) {
    for (const bool last : {false, true}) {
      engine.begin_micro_batch(last);
      tensor::TokenLossOptions options;
      options.scale = 0.5 / static_cast<double>(targets.numel());
      const tensor::TokenLoss loss = decoder->loss(decoder->forward(rows), targets, options);
      torch::autograd::backward({loss.loss}, {});
      figures.push_back(loss.nll_sum / static_cast<double>(loss.targets));
    }
    figures.push_back(engine.finish_gradients(1.0).norm);
    engine.update(update, setting.algorithm == "adamw" ? 3e-3 : 0.05);
  }
  return figures;
}

class GpuTrajectory : public GpuTest {
 protected:
  void expect_same(Setting setting, double tolerance) const {
    setting.device = "cpu";
    const std::vector<double> expected = train(setting);
    setting.device = "cuda";
    const std::vector<double> got = train(setting);
    ASSERT_EQ(got.size(), expected.size());
    for (size_t i = 0; i < got.size(); ++i) {
      EXPECT_NEAR(got[i], expected[i], tolerance * std::max(1.0, std::abs(expected[i])))
          << "figure " << i << " of stage " << setting.stage << ", " << setting.dtype;
    }
    EXPECT_LT(expected[expected.size() - 2], expected.front());  // something is learnt
  }
};

TEST_F(GpuTrajectory, EqualsTheCpusUnsharded) {
  expect_same({.dtype = "fp32", .stage = 0}, 1e-3);
  expect_same({.dtype = "fp32", .stage = 0, .algorithm = "sgd", .tied = false}, 1e-3);
}
TEST_F(GpuTrajectory, EqualsTheCpusAtEveryStage) {
  for (const int64_t stage : {1, 2, 3}) {
    expect_same({.dtype = "fp32", .stage = stage, .tied = stage != 2}, 1e-3);
  }
}
TEST_F(GpuTrajectory, EqualsTheCpusWithRecomputation) {
  expect_same({.dtype = "fp32", .stage = 3, .checkpointing = true}, 1e-3);
}
TEST_F(GpuTrajectory, StaysNearTheCpusInBfloat) {
  expect_same({.dtype = "bf16", .stage = 0}, 0.05);
  expect_same({.dtype = "bf16", .stage = 3}, 0.05);
}
TEST_F(GpuTrajectory, GivesTheSameBitsTwice) {
  const Setting setting{.device = "cuda", .dtype = "bf16", .stage = 3};
  EXPECT_EQ(train(setting), train(setting));
}

TEST_F(GpuTrajectory, AutoMeansTheDeviceOnceThePluginIsLoaded) {
  EXPECT_TRUE(make_decoder({.device = "auto"})->device().is_cuda());
  EXPECT_TRUE(make_decoder({.device = "cpu"})->device().is_cpu());
}

TEST_F(GpuTrajectory, GeneratesTheCpusTokens) {
  model::SampleOptions options;
  options.max_new_tokens = 24;
  options.ignore_stop = true;
  std::vector<std::vector<model::Generated>> results;
  for (const char* device : {"cpu", "cuda"}) {
    const auto decoder = make_decoder({.device = device});
    decoder->load_whole();
    results.push_back(model::generate(*decoder, {{1, 2, 3}, {7, 5}}, options));
  }
  for (size_t p = 0; p < 2; ++p) {
    EXPECT_EQ(results[0][p].tokens, results[1][p].tokens);
  }
}

/// Runs everywhere: the mirror itself and the trajectory's code.
TEST(MirrorTrajectory, LearnsOnTheCpu) {
  for (const int64_t stage : {0, 3}) {
    const std::vector<double> figures = train({.stage = stage, .tied = stage == 3});
    EXPECT_LT(figures[figures.size() - 2], figures.front()) << stage;
  }
}

/// The meta device computes nothing and has no memory: whoever takes its pointers for the host's
/// would crash. Hooks, gathers, gradients and reductions of every stage.
TEST(MetaDevice, TheEngineMovesItsBuffersWithoutTouchingThem) {
  for (const int64_t stage : {0, 1, 2, 3}) {
    const auto decoder = make_decoder({.tied = false});
    optim::OptimConfig config;
    config.zero_stage = stage;
    optim::ShardedParameters engine(decoder->units(),
                                    {comm::Group(std::make_shared<MirrorGroup>()), comm::Group()},
                                    config,
                                    at::kBFloat16,
                                    at::kMeta);
    int64_t asked = 0;
    engine.load([&](const tensor::Parameter&, int64_t, const at::Tensor& out) {
      EXPECT_TRUE(out.is_meta());
      asked += out.numel();
    });
    EXPECT_GT(asked, 0);
    engine.begin_micro_batch(true);
    const int last = static_cast<int>(decoder->units().size()) - 1;
    for (int unit = 0; unit <= last; ++unit) {
      engine.before_forward(unit);
      const auto& value = decoder->units()[static_cast<size_t>(unit)].parameters.front()->value;
      EXPECT_TRUE(value.is_meta() && (value + 1.0).is_meta());
      engine.after_forward(unit);
    }
    for (int unit = last; unit >= 0; --unit) {
      engine.before_backward(unit);
      const auto& parameter = decoder->units()[static_cast<size_t>(unit)].parameters.front();
      EXPECT_TRUE(parameter->accumulator().is_meta());
      EXPECT_EQ(parameter->accumulator().scalar_type(), at::kFloat);
      parameter->accumulator().add_(1.0);
      engine.after_backward(unit);
    }
    for (const optim::StateSlice& slice : engine.owned_slices()) {
      EXPECT_TRUE(slice.data.is_meta()) << slice.key;
    }
  }
}

}  // namespace
}  // namespace kamerton::test
