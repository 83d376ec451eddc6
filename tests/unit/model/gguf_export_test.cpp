// SPDX-License-Identifier: Apache-2.0
#include "kamerton/model/gguf_export.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "kamerton/model/gguf_import.h"
#include "kamerton/storage/gguf.h"

#include "fixture_model.h"
#include "small_model.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace kamerton::model {
namespace {

using storage::GgmlType;

FetchParameter whole_values() {
  return [](const tensor::Parameter& parameter) { return parameter.value.detach(); };
}

/// Writes a decoder as fp32 GGUF, reads it back as a folder and opens that.
std::unique_ptr<Decoder> there_and_back(const Decoder& decoder) {
  const test::TemporaryFolder folder;
  const std::string file = (folder / "m.gguf").string();
  export_gguf(file, decoder, whole_values(), {.type = GgmlType::F32});
  import_gguf(file, (folder / "model").string(), at::kFloat, {});
  ModelOptions options;
  options.path = (folder / "model").string();
  options.dtype = "fp32";
  auto again = std::make_unique<Decoder>(read_config(options.path), options);
  again->load_whole();
  return again;
}

void expect_same_parameters(const Decoder& a, const Decoder& b) {
  const auto left = a.parameters();
  ASSERT_EQ(left.size(), b.parameters().size());
  for (const tensor::ParameterPtr& parameter : left) {
    const tensor::ParameterPtr other = b.find_parameter(parameter->name);
    ASSERT_NE(other, nullptr) << parameter->name;
    EXPECT_TRUE(at::equal(parameter->value, other->value)) << parameter->name;
  }
}

at::Tensor logits_of(Decoder& decoder) {
  const at::NoGradGuard no_grad;
  return decoder.logits(decoder.forward(Rows::from_documents(test::documents_of({7, 3}))));
}

TEST(GgufExport, ReferenceModelsComeBackBitForBit) {
  for (const char* name :
       {"stories260K", "tiny-llama", "tiny-mistral", "tiny-mixtral", "tiny-qwen2", "tiny-qwen3"}) {
    KAMERTON_NEED_ORACLE(std::string("models/") + name);
    const auto decoder = test::load_fixture(name);
    const auto again = there_and_back(*decoder);
    expect_same_parameters(*decoder, *again);
    EXPECT_TRUE(at::allclose(logits_of(*decoder), logits_of(*again), 1e-5, 1e-5)) << name;
  }
}

TEST(GgufExport, ASmallModelWithBiasesComesBackBitForBit) {
  core::Json config = core::parse_json(test::kSmallConfig, "small");
  config["attention_bias"] = true;
  config["mlp_bias"] = true;
  config["tie_word_embeddings"] = false;
  const auto decoder = test::small_model({}, config.dump());
  const auto again = there_and_back(*decoder);
  expect_same_parameters(*decoder, *again);
  EXPECT_TRUE(at::equal(logits_of(*decoder), logits_of(*again)));
}

/// Qwen3-MoE with experts in every layer, as llama.cpp knows it.
std::unique_ptr<Decoder> mixture() {
  core::Json config = core::parse_json(test::kSmallConfig, "small");
  config["architectures"] = {"Qwen3MoeForCausalLM"};
  config["model_type"] = "qwen3_moe";
  config["head_dim"] = 8;
  config["num_experts"] = 5;
  config["num_experts_per_tok"] = 2;
  config["moe_intermediate_size"] = 24;
  config["norm_topk_prob"] = true;
  config["tie_word_embeddings"] = false;
  return test::small_model({}, config.dump());
}

TEST(GgufExport, AMixtureOfExpertsComesBackBitForBit) {
  const auto decoder = mixture();
  ASSERT_NE(decoder->find_parameter("model.layers.2.mlp.experts.4.down_proj.weight"), nullptr);
  const auto again = there_and_back(*decoder);
  expect_same_parameters(*decoder, *again);
  EXPECT_TRUE(at::equal(logits_of(*decoder), logits_of(*again)));
}

/// The file as it was written in early 2024: a tensor of each expert's matrix.
void split_experts(const std::filesystem::path& from, const std::filesystem::path& to) {
  const storage::GgufFile file = storage::GgufFile::open(from);
  storage::GgufMetadata metadata;
  for (const auto& [key, value] : file.metadata().items()) {
    if (value.is_string()) {
      metadata.add_text(key, value.get<std::string>());
    } else if (value.is_number_float()) {
      metadata.add_real(key, value.get<float>());
    } else {
      metadata.add_count(key, value.get<uint32_t>());
    }
  }
  std::vector<storage::GgufDeclaration> tensors;
  std::vector<std::span<const std::byte>> bytes;
  for (const storage::GgufTensor& tensor : file.tensors()) {
    const size_t mark = tensor.name.find("_exps.");
    const int64_t parts = mark == std::string::npos ? 1 : tensor.shape[0];
    const std::span<const std::byte> all = file.bytes(tensor);
    for (int64_t i = 0; i < parts; ++i) {
      std::string name = tensor.name;
      std::vector<int64_t> shape = tensor.shape;
      if (mark != std::string::npos) {
        name.replace(mark, 5, fmt::format(".{}", i));
        shape.erase(shape.begin());
      }
      tensors.push_back({name, tensor.type, shape});
      const size_t size = all.size() / static_cast<size_t>(parts);
      bytes.push_back(all.subspan(size * static_cast<size_t>(i), size));
    }
  }
  storage::GgufWriter writer(to, metadata, tensors);
  for (size_t i = 0; i < tensors.size(); ++i) {
    writer.append(tensors[i].name, bytes[i]);
  }
  writer.finish();
}

TEST(GgufImport, ReadsOneTensorAnExpert) {
  const test::TemporaryFolder folder;
  export_gguf((folder / "m.gguf").string(), *mixture(), whole_values(), {.type = GgmlType::F32});
  split_experts(folder / "m.gguf", folder / "old.gguf");
  ASSERT_NE(storage::GgufFile::open(folder / "old.gguf").find("blk.1.ffn_down.4.weight"), nullptr);
  const auto imported = [&](const char* file, const char* to) {
    import_gguf((folder / file).string(), (folder / to).string(), at::kFloat, {});
    return test::read_text(folder / to / "model.safetensors");
  };

  EXPECT_EQ(imported("old.gguf", "old"), imported("m.gguf", "new"));
}

TEST(GgufImport, RefusesExpertsThatAreNotAsManyAsTheFileSays) {
  const test::TemporaryFolder folder;
  const std::string file = (folder / "m.gguf").string();
  export_gguf(file, *mixture(), whole_values(), {.type = GgmlType::F32});
  std::string bytes = test::read_text(file);
  const std::string key = "qwen3moe.expert_count";
  const size_t at = bytes.find(key);
  ASSERT_NE(at, std::string::npos);
  bytes[at + key.size() + 4] = 4;  // after the value's type
  test::write_text(file, bytes);
  test::expect_error(core::ErrorKind::Data,
                     {"does not hold one matrix an expert", "[4, rows"},
                     [&] { import_gguf(file, (folder / "model").string(), at::kFloat, {}); });
}

TEST(GgufExport, MatricesTakeTheTypeAndVectorsStayFloats) {
  const test::TemporaryFolder folder;
  const auto decoder = test::small_model();
  const auto type_of = [&](GgmlType type, const char* name) {
    export_gguf((folder / "m.gguf").string(), *decoder, whole_values(), {.type = type});
    return storage::GgufFile::open(folder / "m.gguf").find(name)->type;
  };

  EXPECT_EQ(type_of(GgmlType::Q8_0, "blk.0.attn_q.weight"), GgmlType::Q8_0);
  EXPECT_EQ(type_of(GgmlType::Q8_0, "blk.0.attn_norm.weight"), GgmlType::F32);
  EXPECT_EQ(type_of(GgmlType::Q8_0, "blk.0.ffn_down.weight"), GgmlType::F16) << "48 a row";
  EXPECT_EQ(type_of(GgmlType::BF16, "token_embd.weight"), GgmlType::BF16);
}

TEST(GgufExport, RefusesWhatTheTypeCannotHold) {
  const test::TemporaryFolder folder;
  const auto decoder = test::small_model();
  decoder->find_parameter("model.layers.1.mlp.up_proj.weight")->value.detach().view({-1})[5] = 1e6;
  const auto write = [&](GgmlType type) {
    export_gguf((folder / "m.gguf").string(), *decoder, whole_values(), {.type = type});
  };

  test::expect_error(core::ErrorKind::Numeric, {"blk.1.ffn_up.weight", "F16", "bf16"}, [&] {
    write(GgmlType::F16);
  });
  EXPECT_FALSE(std::filesystem::exists(folder / "m.gguf"));
  EXPECT_NO_THROW(write(GgmlType::BF16));
}

TEST(GgufExport, TheContextEndsWhereAWindowBegins) {
  const test::TemporaryFolder folder;
  core::Json config = core::parse_json(test::kSmallConfig, "small");
  config["architectures"] = {"MistralForCausalLM"};
  config["model_type"] = "mistral";
  config["sliding_window"] = 24;
  const auto decoder = test::small_model({}, config.dump());
  export_gguf((folder / "m.gguf").string(), *decoder, whole_values(), {});

  const auto file = storage::GgufFile::open(folder / "m.gguf");
  EXPECT_EQ(file.metadata()["general.architecture"], "llama");
  EXPECT_EQ(file.metadata()["llama.context_length"], 24);
}

TEST(GgufExport, RefusesRotaryScalingWithoutAForm) {
  core::Json config = core::parse_json(test::kSmallConfig, "small");
  config["rope_scaling"] = {{"rope_type", "dynamic"}, {"factor", 2.0}};
  const auto decoder = test::small_model({}, config.dump());
  const test::TemporaryFolder folder;
  test::expect_error(core::ErrorKind::Data, {"dynamic", "llama3"}, [&] {
    export_gguf((folder / "m.gguf").string(), *decoder, whole_values(), {});
  });
}

}  // namespace
}  // namespace kamerton::model
