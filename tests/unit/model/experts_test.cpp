// SPDX-License-Identifier: Apache-2.0
// Mixture-of-experts models against transformers: routers, load-balancing loss.
#include <map>

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "fixture_model.h"
#include "small_model.h"
#include "support/expect_error.h"

namespace kamerton::model {
namespace {

using test::max_difference;
using test::oracle_tensor;

const char* kSmallExperts = R"({"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe",
  "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
  "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64,
  "initializer_range": 0.3, "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
  "norm_topk_prob": true, "mlp_only_layers": [1], "router_aux_loss_coef": 0.5,
  "tie_word_embeddings": true})";

class Experts : public testing::TestWithParam<std::string> {};

TEST_P(Experts, RoutersAndLossesEqualTheReference) {
  const std::string name = "fixtures/forward/" + GetParam() + ".safetensors";
  KAMERTON_NEED_ORACLE(name);
  const auto file = storage::SafetensorsFile::open(test::oracle_path(name));
  const auto flat = test::flatten(oracle_tensor(file, "input_ids"),
                                  oracle_tensor(file, "attention_mask"),
                                  oracle_tensor(file, "labels"));
  ModelOptions options;
  options.router_aux_loss_coef = 0.0;
  const auto decoder = test::load_fixture(GetParam(), options);
  std::map<int64_t, at::Tensor> routers;
  decoder->set_router_observer([&](int64_t layer, const at::Tensor& x) { routers[layer] = x; });

  const at::NoGradGuard no_grad;
  tensor::TokenLossOptions loss_options;
  loss_options.scale = 1.0 / flat.targets_N.ne(tensor::kIgnoredTarget).sum().item<double>();
  const double loss =
      decoder->loss(decoder->forward(flat.rows), flat.targets_N, loss_options).loss.item<double>();

  EXPECT_NEAR(decoder->router_loss(), oracle_tensor(file, "aux_loss").item<double>(), 1e-5);
  EXPECT_NEAR(loss + decoder->config().experts.aux_coefficient * decoder->router_loss(),
              oracle_tensor(file, "loss_with_aux").item<double>(),
              1e-5);
  int64_t found = 0;  // the reference numbers routers, we number layers
  for (const auto& [layer, logits] : routers) {
    const at::Tensor want = oracle_tensor(file, "router_logits." + std::to_string(found++));
    ASSERT_TRUE(want.defined()) << layer;
    EXPECT_LT(max_difference(logits, want.view({-1, logits.size(1)}).index_select(0, flat.kept)),
              2e-5)
        << layer;
  }
  EXPECT_FALSE(oracle_tensor(file, "router_logits." + std::to_string(found)).defined());
}

INSTANTIATE_TEST_SUITE_P(Models,
                         Experts,
                         testing::Values("tiny-mixtral", "tiny-qwen3_moe"),
                         [](const auto& info) { return info.param.substr(5); });

/// Gradients of strength * load-balancing loss alone, by parameter.
std::map<std::string, at::Tensor> aux_gradients(const std::string& checkpointing) {
  ModelOptions options;
  options.activation_checkpointing = checkpointing;
  const auto decoder = test::small_model(options, kSmallExperts);
  decoder->set_router_strength(2.0);
  const at::Tensor hidden = decoder->forward(Rows::from_documents(test::documents_of({9, 5})));
  torch::autograd::backward({(hidden * 0.0).sum()}, {});
  std::map<std::string, at::Tensor> out;
  for (const tensor::ParameterPtr& parameter : decoder->parameters()) {
    out[parameter->name] = parameter->value.grad();
  }
  return out;
}

TEST(ExpertsGradient, TheBalancingLossIsDifferentiatedThroughAllLayers) {
  const auto gradients = aux_gradients("none");
  const auto decoder = test::small_model({}, kSmallExperts);
  const at::NoGradGuard no_grad;
  const auto loss_at = [&](const std::string& name, int64_t element, float step) {
    at::Tensor value = decoder->find_parameter(name)->value.detach().view({-1});
    const at::Tensor kept = value[element].clone();
    value[element] += step;
    decoder->forward(Rows::from_documents(test::documents_of({9, 5})));
    value[element] = kept;
    return 2.0 * decoder->router_loss();
  };
  for (const char* name : {"model.layers.0.mlp.gate.weight",
                           "model.layers.2.mlp.gate.weight",
                           "model.layers.0.self_attn.v_proj.weight",
                           "model.layers.1.mlp.down_proj.weight"}) {
    const at::Tensor gradient = gradients.at(name).view({-1});
    const int64_t element = gradient.abs().argmax().item<int64_t>();
    const double step = 1e-3;
    const double slope =
        (loss_at(name, element, step) - loss_at(name, element, -step)) / (2 * step);
    EXPECT_NEAR(gradient[element].item<double>(), slope, 0.02 * std::fabs(slope) + 1e-4) << name;
  }
}

TEST(ExpertsGradient, RecomputationGivesTheSameBits) {
  const auto whole = aux_gradients("none");
  const auto again = aux_gradients("block");
  for (const auto& [name, gradient] : whole) {
    ASSERT_EQ(gradient.defined(), again.at(name).defined()) << name;
    EXPECT_TRUE(!gradient.defined() || at::equal(gradient, again.at(name))) << name;
  }
}

TEST(ExpertsConfig, SaysWhichLayersAreSparse) {
  core::Json json = core::parse_json(kSmallExperts, "small");
  EXPECT_EQ(parse_config(json.dump(), "small").experts.sparse,
            (std::vector<bool>{true, false, true}));
  json["decoder_sparse_step"] = 3;
  EXPECT_EQ(parse_config(json.dump(), "small").experts.sparse,
            (std::vector<bool>{false, false, true}));
  json["num_experts_per_tok"] = 7;
  test::expect_error(core::ErrorKind::Data, {"num_experts_per_tok", "6"}, [&] {
    parse_config(json.dump(), "small");
  });
}

TEST(ExpertsConfig, TheCoefficientFollowsTheFileAndYieldsToTheOption) {
  core::Json json = core::parse_json(kSmallExperts, "small");
  EXPECT_EQ(test::small_model({}, json.dump())->router_coefficient(), 0.0);
  ModelOptions options;
  options.router_aux_loss_coef = 0.25;
  EXPECT_EQ(test::small_model(options, json.dump())->router_coefficient(), 0.25);
  json["output_router_logits"] = true;
  EXPECT_EQ(test::small_model({}, json.dump())->router_coefficient(), 0.5);
  EXPECT_EQ(test::small_model(options)->router_coefficient(), 0.0) << "a dense model";
}

}  // namespace
}  // namespace kamerton::model
