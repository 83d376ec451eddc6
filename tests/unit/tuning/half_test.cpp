// SPDX-License-Identifier: Apache-2.0
#include "kamerton/tuning/half.h"

#include <map>

#include <fmt/format.h>
#include <gmock/gmock.h>

namespace kamerton::tuning {
namespace {

std::unique_ptr<model::Decoder> decoder_of(const std::string& architecture,
                                           const std::string& type,
                                           int64_t layers,
                                           const std::string& more = "") {
  const std::string text = fmt::format(
      R"({{"architectures": ["{}"], "model_type": "{}", "vocab_size": 64, "hidden_size": 32,
          "intermediate_size": 48, "num_hidden_layers": {}, "num_attention_heads": 4,
          "num_key_value_heads": 4, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
          "tie_word_embeddings": false{}}})",
      architecture,
      type,
      layers,
      more);
  model::ModelOptions options;
  options.device = "cpu";
  return std::make_unique<model::Decoder>(model::parse_config(text, "test"), options);
}

std::unique_ptr<model::Decoder> llama(int64_t layers) {
  return decoder_of("LlamaForCausalLM", "llama", layers);
}

/// Drawn matrices of a part in each layer.
std::vector<int> counts(const model::Decoder& decoder,
                        const HalfDraws::Set& drawn,
                        const std::string& part) {
  std::vector<int> found(static_cast<size_t>(decoder.config().layers));
  for (size_t layer = 0; layer < found.size(); ++layer) {
    for (const auto& parameter : decoder.units()[layer + 1].parameters) {
      const bool in_part =
          parameter->name.find(fmt::format(".{}.{}", layer, part)) != std::string::npos;
      found[layer] += in_part && drawn.contains(parameter.get()) ? 1 : 0;
    }
  }
  return found;
}

TEST(HalfDraws, TakesTwoOfFourAttentionMatricesAndHalfOfTheFeedForwardOnes) {
  const auto decoder = llama(6);
  const HalfDraws draws(*decoder, {}, 42);
  for (int64_t number = 0; number < 20; ++number) {
    const HalfDraws::Set drawn = draws.draw(number);
    EXPECT_THAT(counts(*decoder, drawn, "self_attn"), testing::Each(2));
    EXPECT_THAT(counts(*decoder, drawn, "mlp"), testing::Each(testing::AnyOf(1, 2)));
    EXPECT_THAT(counts(*decoder, drawn, "input_layernorm"), testing::Each(testing::Le(1)));
    int norms = 0;
    for (size_t layer = 0; layer < 6; ++layer) {
      norms += counts(*decoder, drawn, "input_layernorm")[layer];
      norms += counts(*decoder, drawn, "post_attention_layernorm")[layer];
    }
    EXPECT_EQ(norms, 6);
    for (const char* name : {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"}) {
      EXPECT_TRUE(drawn.contains(decoder->find_parameter(name).get())) << name;
    }
  }
}

TEST(HalfDraws, TrainsExactlyHalfOfTheElementsOfAnEvenNumberOfLayers) {
  for (const char* level : {"category", "layer"}) {
    const auto decoder = llama(6);
    const HalfDraws draws(*decoder, {.level = level}, 7);
    const HalfDraws::Set drawn = draws.draw(3);
    int64_t half = 0, all = 0;
    for (size_t unit = 1; unit <= 6; ++unit) {
      for (const auto& parameter : decoder->units()[unit].parameters) {
        const bool counted = parameter->name != "model.norm.weight";
        all += counted ? parameter->numel() : 0;
        half += counted && drawn.contains(parameter.get()) ? parameter->numel() : 0;
      }
    }
    EXPECT_EQ(2 * half, all) << level;
  }
}

TEST(HalfDraws, LevelsDiffer) {
  const auto decoder = llama(8);
  const HalfDraws::Set layers = HalfDraws(*decoder, {.level = "layer"}, 1).draw(0);
  EXPECT_THAT(counts(*decoder, layers, "self_attn"), testing::Each(testing::AnyOf(0, 4)));
  const HalfDraws::Set model = HalfDraws(*decoder, {.level = "model"}, 1).draw(0);
  int matrices = 0;
  for (size_t layer = 0; layer < 8; ++layer) {
    matrices += counts(*decoder, model, "self_attn")[layer] + counts(*decoder, model, "mlp")[layer];
  }
  EXPECT_EQ(matrices, 8 * 7 / 2);
  EXPECT_THAT(counts(*decoder, model, "self_attn"), testing::Not(testing::Each(2)));
}

TEST(HalfDraws, FollowsFromSeedAndNumberAlone) {
  const auto decoder = llama(4);
  const HalfDraws draws(*decoder, {}, 42);
  EXPECT_EQ(draws.draw(5), HalfDraws(*decoder, {}, 42).draw(5));
  EXPECT_NE(draws.draw(5), draws.draw(6));
  EXPECT_NE(draws.draw(5), HalfDraws(*decoder, {}, 43).draw(5));
}

TEST(HalfDraws, EveryMatrixIsDrawnAboutHalfOfTheTime) {
  const auto decoder = llama(4);
  const HalfDraws draws(*decoder, {}, 42);
  std::map<const tensor::Parameter*, int> times;
  constexpr int kDraws = 400;
  for (int64_t number = 0; number < kDraws; ++number) {
    for (const tensor::Parameter* parameter : draws.draw(number)) {
      ++times[parameter];
    }
  }
  for (size_t unit = 1; unit <= 4; ++unit) {
    for (const auto& parameter : decoder->units()[unit].parameters) {
      if (parameter->name != "model.norm.weight") {
        EXPECT_NEAR(times[parameter.get()], kDraws / 2, 50) << parameter->name;
      }
    }
  }
}

TEST(HalfDraws, NeverWakesWhatIsFrozenAndBiasesGoWithTheirMatrix) {
  const auto decoder = decoder_of("Qwen2ForCausalLM", "qwen2", 4);
  decoder->find_parameter("model.layers.1.mlp.up_proj.weight")->trainable = false;
  const HalfDraws draws(*decoder, {}, 42);
  for (int64_t number = 0; number < 10; ++number) {
    const HalfDraws::Set drawn = draws.draw(number);
    EXPECT_FALSE(
        drawn.contains(decoder->find_parameter("model.layers.1.mlp.up_proj.weight").get()));
    for (const char* module : {"q_proj", "k_proj", "v_proj"}) {
      const std::string name = fmt::format("model.layers.2.self_attn.{}", module);
      EXPECT_EQ(drawn.contains(decoder->find_parameter(name + ".weight").get()),
                drawn.contains(decoder->find_parameter(name + ".bias").get()))
          << name;
    }
  }
}

TEST(HalfDraws, SetsTheFlagsOfTheDecoder) {
  const auto decoder = llama(2);
  const HalfDraws draws(*decoder, {}, 42);
  const HalfDraws::Set drawn = draws.draw(1);
  apply(drawn, *decoder);
  for (const auto& parameter : decoder->parameters()) {
    EXPECT_EQ(parameter->trainable, drawn.contains(parameter.get())) << parameter->name;
  }
}

}  // namespace
}  // namespace kamerton::tuning
