// SPDX-License-Identifier: Apache-2.0
#include "kamerton/model/architecture.h"

#include <string>

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/json.h"

#include "rope.h"
#include "support/expect_error.h"

namespace kamerton::model {
namespace {

using core::ErrorKind;
using core::Json;

Json llama() {
  return Json::parse(R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama",
    "vocab_size": 100, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 128})");
}

DecoderConfig parse(const Json& object) {
  return parse_config(object.dump(), "config.json");
}

/// The configuration with key = value (JSON text) is refused with all of the parts.
void refused(const std::string& key,
             const std::string& value,
             std::initializer_list<std::string> parts) {
  Json object = llama();
  object[key] = Json::parse(value);
  test::expect_error(ErrorKind::Data, parts, [&] { parse(object); });
}

TEST(Config, FillsTheDefaultsOfTransformers) {
  const DecoderConfig config = parse(llama());
  EXPECT_EQ(config.kv_heads, 4);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.rope.theta, 10000.0);
  EXPECT_EQ(config.norm_eps, 1e-6);
  EXPECT_EQ(config.bos_id, 1);
  EXPECT_EQ(config.eos_ids, std::vector<int64_t>{2});
  EXPECT_FALSE(config.tied_head);
  EXPECT_EQ(config.windows, (std::vector<int64_t>{0, 0}));

  Json qwen = llama();
  qwen["architectures"] = {"Qwen3ForCausalLM"};
  qwen["num_key_value_heads"] = 2;
  EXPECT_EQ(parse(qwen).head_dim, 128);
  EXPECT_TRUE(parse(qwen).eos_ids.empty());
}

TEST(Config, FindsTheFamilyByModelTypeWhenNoArchitectureIsNamed) {
  Json object = llama();
  object.erase("architectures");
  EXPECT_EQ(parse(object).architecture, "LlamaForCausalLM");
}

TEST(Config, ReadsListsOfEndTokensAndNull) {
  Json object = llama();
  object["eos_token_id"] = {7, 9};
  object["bos_token_id"] = nullptr;
  object["pad_token_id"] = -1;
  const DecoderConfig config = parse(object);
  EXPECT_EQ(config.eos_ids, (std::vector<int64_t>{7, 9}));
  EXPECT_FALSE(config.bos_id.has_value());
  EXPECT_FALSE(config.pad_id.has_value());
}

TEST(Config, QwenWindowsFollowTheLayers) {
  Json object = llama();
  object["architectures"] = {"Qwen2ForCausalLM"};
  object["num_key_value_heads"] = 4;
  object["use_sliding_window"] = true;
  object["sliding_window"] = 32;
  object["max_window_layers"] = 1;
  EXPECT_EQ(parse(object).windows, (std::vector<int64_t>{0, 32}));
  object["layer_types"] = {"sliding_attention", "full_attention"};
  EXPECT_EQ(parse(object).windows, (std::vector<int64_t>{32, 0}));
  object["use_sliding_window"] = false;
  EXPECT_EQ(parse(object).windows, (std::vector<int64_t>{0, 0}));
}

TEST(Config, RefusesWhatItDoesNotKnowAndNamesWhatItDoes) {
  refused("architectures",
          R"(["BertForMaskedLM"])",
          {"not supported", "BertForMaskedLM", "LlamaForCausalLM", "Qwen2ForCausalLM"});
  refused("hidden_act", R"("relu")", {"hidden_act", "relu"});
  refused("quantization_config", R"({"bits": 4})", {"quantised"});
  refused("dtype", R"("int8")", {"dtype", "int8"});
  refused("rope_scaling", R"({"rope_type": "banana", "factor": 2})", {"banana", "llama3"});
}

TEST(Config, RefusesAbsurdNumbers) {
  refused("hidden_size", "0", {"hidden_size", "got 0"});
  refused("hidden_size", "-64", {"hidden_size"});
  refused("hidden_size", "64.5", {"hidden_size", "64.5"});
  refused("hidden_size", R"("64")", {"hidden_size"});
  refused("num_hidden_layers", "18446744073709551615", {"num_hidden_layers"});
  refused("vocab_size", "9000000000000000000", {"vocab_size"});
}

TEST(Config, RefusesShapesThatDoNotFit) {
  refused("num_key_value_heads", "3", {"num_key_value_heads", "3 of 4"});
  refused("head_dim", "15", {"head_dim", "even"});
  refused("rms_norm_eps", "0", {"rms_norm_eps"});
  refused("rope_theta", "-1", {"rope_theta"});
  refused("partial_rotary_factor", "1.5", {"partial_rotary_factor"});
  refused("partial_rotary_factor", "0.32", {"partial_rotary_factor", "even"});
  refused("num_attention_heads", "6", {"num_attention_heads", "6 heads of 64"});
  refused("eos_token_id", R"("</s>")", {"eos_token_id"});
  refused("tie_word_embeddings", "1", {"tie_word_embeddings", "true or false"});
}

TEST(Config, ReadsWhatAFamilyHasOfItsOwn) {
  Json granite = llama();
  granite["architectures"] = {"GraniteForCausalLM"};
  granite["embedding_multiplier"] = 12.0;
  granite["logits_scaling"] = 8.0;
  granite["residual_multiplier"] = 0.22;
  granite["attention_multiplier"] = 0.0078125;
  const DecoderConfig config = parse(granite);
  EXPECT_EQ(config.embedding_scale, 12.0);
  EXPECT_EQ(config.logit_scale, 0.125);
  EXPECT_EQ(config.residual_scale, 0.22);
  EXPECT_EQ(config.attention_scale, 0.0078125);
  EXPECT_EQ(Json::parse(config_to_json(config, at::kFloat))["logits_scaling"], 8.0);

  Json olmo = llama();
  olmo["architectures"] = {"Olmo2ForCausalLM"};
  EXPECT_EQ(parse(olmo).qk_norm, QkNorm::Whole);
  EXPECT_EQ(parse(olmo).norm_eps, 1e-5);

  const DecoderConfig gpt2 =
      parse(Json::parse(R"({"model_type": "gpt2", "n_embd": 32, "n_layer": 3, "n_head": 4,
      "n_positions": 16, "n_inner": null, "scale_attn_by_inverse_layer_idx": true})"));
  EXPECT_EQ(gpt2.intermediate_size, 128);
  EXPECT_EQ(gpt2.max_positions, 16);
  EXPECT_TRUE(gpt2.tied_head && gpt2.scale_by_layer && !gpt2.rotary);
}

Json gemma3() {
  Json object = llama();
  object["architectures"] = {"Gemma3ForCausalLM"};
  object["head_dim"] = 16;
  object["num_hidden_layers"] = 7;
  return object;
}

TEST(Config, AlternatingWindowsHaveARotationEach) {
  Json object = gemma3();
  const DecoderConfig plain = parse(object);
  EXPECT_EQ(plain.windows, (std::vector<int64_t>{4096, 4096, 4096, 4096, 4096, 0, 4096}));
  EXPECT_EQ(plain.rope.theta, 1e6);
  EXPECT_EQ(plain.local_rope->theta, 1e4);
  object["sliding_window_pattern"] = 2;
  object["sliding_window"] = 8;
  object["rope_local_base_freq"] = 500.0;
  object["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 8.0}};
  const DecoderConfig older = parse(object);
  EXPECT_EQ(older.windows, (std::vector<int64_t>{8, 0, 8, 0, 8, 0, 8}));
  EXPECT_EQ(older.local_rope->theta, 500.0);
  EXPECT_EQ(older.local_rope->type, "default");
  EXPECT_EQ(older.rope.factor, 8.0);
  const DecoderConfig again = parse(Json::parse(config_to_json(older, at::kFloat)));
  EXPECT_EQ(again.local_rope->theta, 500.0);
  EXPECT_EQ(again.rope.factor, 8.0);
  EXPECT_EQ(again.windows, older.windows);
}

TEST(Config, RefusesContradictionsOfAFamilysKeys) {
  Json object = gemma3();
  object["rope_local_base_freq"] = 500.0;
  object["rope_parameters"] = {
      {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 1e4}}},
      {"full_attention", {{"rope_type", "default"}, {"rope_theta", 1e6}}}};
  test::expect_error(
      ErrorKind::Data, {"rope_local_base_freq", "500", "10000"}, [&] { parse(object); });
  Json neox = llama();
  neox["architectures"] = {"GPTNeoXForCausalLM"};
  neox["hidden_act"] = "gelu";
  neox["rotary_pct"] = 0.5;
  neox["rope_parameters"] = {{"rope_type", "default"}, {"partial_rotary_factor", 0.25}};
  test::expect_error(
      ErrorKind::Data, {"partial_rotary_factor", "0.5", "0.25"}, [&] { parse(neox); });
  neox.erase("rotary_pct");
  neox["hidden_act"] = "mish";
  test::expect_error(
      ErrorKind::Data, {"hidden_act", "mish", "gelu_new", "silu"}, [&] { parse(neox); });
  Json phi = llama();
  phi["architectures"] = {"Phi3ForCausalLM"};
  phi["rope_scaling"] = {
      {"type", "longrope"}, {"short_factor", {1.0, 1.0}}, {"long_factor", {1.0}}};
  test::expect_error(ErrorKind::Data, {"short_factor", "2", "8"}, [&] { parse(phi); });
  Json gemma = gemma3();
  gemma["use_bidirectional_attention"] = true;
  test::expect_error(ErrorKind::Data, {"use_bidirectional_attention"}, [&] { parse(gemma); });
  gemma["use_bidirectional_attention"] = false;
  gemma["layer_types"] = {"full_attention"};
  test::expect_error(ErrorKind::Data, {"layer_types", "7"}, [&] { parse(gemma); });
}

TEST(Config, RefusesTwoSpellingsThatDisagree) {
  Json object = llama();
  object["dtype"] = "float32";
  object["torch_dtype"] = "bfloat16";
  test::expect_error(ErrorKind::Data, {"torch_dtype", "dtype", "bfloat16"}, [&] { parse(object); });
  object["torch_dtype"] = "float32";
  object["rope_theta"] = 10000.0;
  object["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 500000.0}};
  test::expect_error(ErrorKind::Data, {"rope_theta", "500000"}, [&] { parse(object); });
}

TEST(Config, RefusesWhatIsNotAnObject) {
  for (const char* text : {"[]", "3", "", "{", R"({"a": 1, "a": 2})", "\xff"}) {
    EXPECT_THROW(parse_config(text, "config.json"), core::Error) << text;
  }
}

TEST(Config, WritesWhatItReadAndKeepsUnknownKeys) {
  Json object = llama();
  object["something_new"] = {1, 2};
  object["rope_scaling"] = {{"type", "llama3"},
                            {"factor", 8.0},
                            {"low_freq_factor", 1.0},
                            {"high_freq_factor", 4.0},
                            {"original_max_position_embeddings", 32}};
  object["rope_theta"] = 500000.0;
  const DecoderConfig config = parse(object);

  const Json written = Json::parse(config_to_json(config, at::kBFloat16));
  const DecoderConfig again = parse(written);

  EXPECT_EQ(written["something_new"], object["something_new"]);
  EXPECT_EQ(written["dtype"], "bfloat16");
  EXPECT_EQ(written["torch_dtype"], "bfloat16");
  EXPECT_EQ(written["rope_parameters"]["rope_theta"], 500000.0);
  EXPECT_EQ(again.rope.type, "llama3");
  EXPECT_EQ(again.rope.original_max_positions, 32);
  EXPECT_EQ(again.stored_dtype, at::kBFloat16);
}

/// inv_freq of transformers 5.23 for head_dim 16, theta 10000, 128 positions.
at::Tensor frequencies(const Json& scaling, int64_t length, double& factor) {
  Json object = llama();
  object["rope_scaling"] = scaling;
  const DecoderConfig config = parse(object);
  return inverse_frequencies(config, config.rope, length, factor);
}

TEST(Rope, LinearAndDynamicScalingFollowTheirFormulas) {
  double factor = 0;
  const at::Tensor plain = frequencies(nullptr, 0, factor);
  for (int64_t i = 0; i < 8; ++i) {
    EXPECT_NEAR(plain[i].item<double>(), std::pow(10000.0, -2.0 * double(i) / 16), 1e-7);
  }
  const at::Tensor linear = frequencies({{"rope_type", "linear"}, {"factor", 4.0}}, 0, factor);
  EXPECT_TRUE(at::allclose(linear * 4, plain));
  const Json dynamic = {{"rope_type", "dynamic"}, {"factor", 2.0}};
  EXPECT_TRUE(at::equal(frequencies(dynamic, 100, factor), plain));  // inside the context
  const at::Tensor longer = frequencies(dynamic, 256, factor);
  const double base = 10000.0 * std::pow(2.0 * 256 / 128 - 1, 16.0 / 14);
  for (int64_t i = 0; i < 8; ++i) {
    EXPECT_NEAR(longer[i].item<double>(), std::pow(base, -2.0 * double(i) / 16), 1e-7);
  }
}

TEST(Rope, DynamicScalingMakesLongerTextsPossible) {
  Json object = llama();
  EXPECT_EQ(parse(object).context(), 128);
  object["rope_scaling"] = {{"rope_type", "dynamic"}, {"factor", 2.5}};
  EXPECT_EQ(parse(object).context(), 320);
  object["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 2.5}};
  EXPECT_EQ(parse(object).context(), 128);
}

TEST(Rope, YarnFollowsTheReference) {
  double factor = 0;
  const Json yarn = {
      {"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 32}};
  const at::Tensor got = frequencies(yarn, 0, factor);
  EXPECT_NEAR(factor, 0.1 * std::log(4.0) + 1.0, 1e-12);
  // low = floor(-1.6) -> 0, high = ceil(1.41) = 2: dimensions 0, 1 on the ramp, the rest
  // interpolated.
  const double want[] = {1.0,
                         0.625 * std::pow(10000.0, -1.0 / 8),
                         0.25 * std::pow(10000.0, -2.0 / 8),
                         0.25 * std::pow(10000.0, -3.0 / 8)};
  for (int64_t i = 0; i < 4; ++i) {
    EXPECT_NEAR(got[i].item<double>(), want[i], 1e-6) << i;
  }
}

TEST(Rope, LongropeChoosesItsFactorsByTheDocumentsLength) {
  Json object = llama();
  object["architectures"] = {"Phi3ForCausalLM"};
  object["original_max_position_embeddings"] = 32;
  const std::vector<double> short_factors = {1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7};
  const std::vector<double> long_factors = {1, 2, 3, 4, 5, 6, 7, 8};
  object["rope_scaling"] = {
      {"type", "longrope"}, {"short_factor", short_factors}, {"long_factor", long_factors}};
  const DecoderConfig config = parse(object);
  EXPECT_EQ(length_of_change(config), 32);
  double factor = 0;
  const at::Tensor near = inverse_frequencies(config, config.rope, 32, factor);
  const at::Tensor far = inverse_frequencies(config, config.rope, 33, factor);
  EXPECT_NEAR(factor, std::sqrt(1 + std::log(4.0) / std::log(32.0)), 1e-12);
  for (int64_t i = 0; i < 8; ++i) {
    const double plain = std::pow(10000.0, -2.0 * double(i) / 16);
    EXPECT_NEAR(near[i].item<double>(), plain / short_factors[size_t(i)], 1e-7);
    EXPECT_NEAR(far[i].item<double>(), plain / long_factors[size_t(i)], 1e-7);
  }
  // A short and a long document side by side: each row by its own.
  const at::Tensor positions = at::cat({at::arange(10), at::arange(40)});
  const tensor::Rotary both = rotary_table(config, config.rope, positions, {0, 10, 50});
  const tensor::Rotary one = rotary_table(config, config.rope, at::arange(10), {0, 10});
  const tensor::Rotary two = rotary_table(config, config.rope, at::arange(40), {0, 40});
  EXPECT_TRUE(at::equal(both.cos_NR, at::cat({one.cos_NR, two.cos_NR})));
  EXPECT_FALSE(at::equal(one.cos_NR, two.cos_NR.narrow(0, 0, 10)));
}

}  // namespace
}  // namespace kamerton::model
