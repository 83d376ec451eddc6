// SPDX-License-Identifier: Apache-2.0
#include <map>

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "kamerton/model/generate.h"

#include "fixture_model.h"

namespace kamerton::model {
namespace {

using test::FlatBatch;
using test::flatten;
using test::max_difference;
using test::oracle_tensor;

class Fixture : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    const std::string file = "fixtures/forward/" + GetParam() + ".safetensors";
    KAMERTON_NEED_ORACLE(file);
    expected_ = std::make_unique<storage::SafetensorsFile>(
        storage::SafetensorsFile::open(test::oracle_path(file)));
  }
  at::Tensor expected(const std::string& name) const { return oracle_tensor(*expected_, name); }
  /// Rows of an expected [B, T, ...] tensor that are not padding.
  at::Tensor kept(const std::string& name, const FlatBatch& batch) const {
    return expected(name).flatten(0, 1).index_select(0, batch.kept);
  }
  FlatBatch batch() const {
    return flatten(expected("input_ids"), expected("attention_mask"), expected("labels"));
  }
  double logit_tolerance() const { return GetParam() == "stories260K" ? 1e-4 : 2e-5; }

  std::unique_ptr<storage::SafetensorsFile> expected_;
};

TEST_P(Fixture, LogitsAndHiddenStatesEqualTheReference) {
  const at::NoGradGuard no_grad;
  const auto decoder = test::load_fixture(GetParam());
  const FlatBatch flat = batch();
  std::map<int64_t, at::Tensor> hidden;
  decoder->set_observer([&](int64_t layer, const at::Tensor& x) { hidden[layer] = x; });

  const at::Tensor logits = decoder->logits(decoder->forward(flat.rows));

  EXPECT_LT(max_difference(logits, kept("logits", flat)), logit_tolerance());
  for (const auto& [layer, x] : hidden) {
    EXPECT_LT(max_difference(x, kept("hidden." + std::to_string(layer + 1), flat)),
              logit_tolerance())
        << layer;
  }
  EXPECT_EQ(hidden.size(), static_cast<size_t>(decoder->config().layers) + 1);
}

TEST_P(Fixture, LeftPaddedRowsGiveTheSameLogits) {
  const at::NoGradGuard no_grad;
  const auto decoder = test::load_fixture(GetParam());
  const FlatBatch flat = flatten(expected("left.input_ids"), expected("left.attention_mask"), {});

  const at::Tensor logits = decoder->logits(decoder->forward(flat.rows));

  EXPECT_LT(max_difference(logits, kept("left.logits", flat)), logit_tolerance());
  const at::Tensor positions = expected("left.position_ids").flatten().index_select(0, flat.kept);
  EXPECT_TRUE(at::equal(positions, flat.rows.positions_N));
}

TEST_P(Fixture, LossAndEveryGradientEqualTheReference) {
  const auto decoder = test::load_fixture(GetParam());
  const FlatBatch flat = batch();
  const double targets = flat.targets_N.ne(tensor::kIgnoredTarget).sum().item<double>();
  tensor::TokenLossOptions options;
  options.scale = 1.0 / targets;

  const tensor::TokenLoss loss =
      decoder->loss(decoder->forward(flat.rows), flat.targets_N, options);
  torch::autograd::backward({loss.loss}, {});

  EXPECT_NEAR(loss.loss.item<double>(), expected("loss").item<double>(), 1e-5);
  double squares = 0;
  for (const tensor::ParameterPtr& parameter : decoder->parameters()) {
    const at::Tensor want = expected("grad." + parameter->name);
    ASSERT_TRUE(want.defined()) << parameter->name;
    const at::Tensor got = parameter->value.grad();
    ASSERT_TRUE(got.defined()) << parameter->name;
    EXPECT_LT(max_difference(got, want), 1e-5 + 1e-4 * want.abs().max().item<double>())
        << parameter->name;
    squares += got.to(at::kDouble).square().sum().item<double>();
  }
  const double norm = expected("grad_norm").item<double>();
  EXPECT_NEAR(std::sqrt(squares), norm, 1e-4 * norm);
}

TEST_P(Fixture, GreedyContinuationEqualsTheReference) {
  const auto decoder = test::load_fixture(GetParam());
  const at::Tensor whole = expected("greedy.ids")[0].contiguous();
  const std::vector<int64_t> ids(whole.const_data_ptr<int64_t>(),
                                 whole.const_data_ptr<int64_t>() + whole.numel());
  const std::vector<int64_t> prompt(ids.begin(), ids.begin() + 24);
  SampleOptions options;
  options.max_new_tokens = 16;
  options.ignore_stop = true;

  const std::vector<Generated> result = generate(*decoder, {prompt}, options);

  EXPECT_EQ(result[0].tokens, std::vector<int64_t>(ids.begin() + 24, ids.end()));
}

TEST_P(Fixture, BothSpellingsOfTheConfigurationAreTheSame) {
  const std::string folder = "models/" + GetParam() + "/";
  KAMERTON_NEED_ORACLE(folder + "config.v4.json");
  const auto read = [](const std::filesystem::path& path) {
    std::ifstream file(path);
    std::stringstream text;
    text << file.rdbuf();
    return parse_config(text.str(), path.string());
  };
  const DecoderConfig now = read(test::oracle_path(folder + "config.json"));
  DecoderConfig before = read(test::oracle_path(folder + "config.v4.json"));

  const DecoderConfig again = parse_config(config_to_json(now, at::kFloat), "written");
  before.source_json = now.source_json;
  EXPECT_EQ(config_to_json(before, at::kFloat), config_to_json(now, at::kFloat));
  EXPECT_EQ(again.windows, now.windows);
  EXPECT_EQ(again.rope.theta, now.rope.theta);
  EXPECT_EQ(again.rope.type, now.rope.type);
  EXPECT_EQ(again.parameter_count(), now.parameter_count());
}

INSTANTIATE_TEST_SUITE_P(Models,
                         Fixture,
                         testing::ValuesIn(test::fixture_models()),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace kamerton::model
