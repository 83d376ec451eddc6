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

struct Piece {
  std::string name;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
};
using Pieces = std::vector<Piece>;

/// Writes the file again, with what `cut` makes of each tensor.
void rewrite(const std::filesystem::path& from,
             const std::filesystem::path& to,
             const std::function<Pieces(const Piece&)>& cut) {
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
  Pieces pieces;
  for (const storage::GgufTensor& tensor : file.tensors()) {
    for (Piece& piece : cut({tensor.name, tensor.shape, file.bytes(tensor)})) {
      tensors.push_back({piece.name, tensor.type, piece.shape});
      pieces.push_back(std::move(piece));
    }
  }
  storage::GgufWriter writer(to, metadata, tensors);
  for (const Piece& piece : pieces) {
    writer.append(piece.name, piece.bytes);
  }
  writer.finish();
}

/// As it was written in early 2024: a tensor of each expert's matrix.
Pieces split_experts(const Piece& tensor) {
  const size_t mark = tensor.name.find("_exps.");
  if (mark == std::string::npos) {
    return {tensor};
  }
  Pieces pieces;
  const size_t size = tensor.bytes.size() / static_cast<size_t>(tensor.shape[0]);
  for (int64_t i = 0; i < tensor.shape[0]; ++i) {
    std::string name = tensor.name;
    name.replace(mark, 5, fmt::format(".{}", i));
    pieces.push_back({name,
                      {tensor.shape.begin() + 1, tensor.shape.end()},
                      tensor.bytes.subspan(size * static_cast<size_t>(i), size)});
  }
  return pieces;
}

TEST(GgufImport, ReadsOneTensorAnExpert) {
  const test::TemporaryFolder folder;
  export_gguf((folder / "m.gguf").string(), *mixture(), whole_values(), {.type = GgmlType::F32});
  rewrite(folder / "m.gguf", folder / "old.gguf", split_experts);
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
                     {"ffn_gate_inp.weight has another shape", "[5, 32]", "[4, 32]"},
                     [&] { import_gguf(file, (folder / "model").string(), at::kFloat, {}); });
}

TEST(GgufImport, MetadataAndTensorsMustAgree) {
  const test::TemporaryFolder folder;
  export_gguf((folder / "m.gguf").string(), *mixture(), whole_values(), {.type = GgmlType::F32});
  const auto expect_refused = [&](std::initializer_list<std::string> words, const auto& cut) {
    rewrite(folder / "m.gguf", folder / "bad.gguf", cut);
    test::expect_error(core::ErrorKind::Data, words, [&] {
      import_gguf((folder / "bad.gguf").string(), (folder / "model").string(), at::kFloat, {});
    });
    EXPECT_FALSE(std::filesystem::exists(folder / "model"));
  };
  const std::string down = "blk.1.ffn_down_exps.weight";
  const std::string first = "blk.1.ffn_down.0.weight";

  expect_refused({"two tensors for one parameter", down, first}, [&](const Piece& tensor) {
    Pieces pieces = {tensor};
    if (tensor.name == down) {
      pieces.push_back(split_experts(tensor)[0]);
    }
    return pieces;
  });
  expect_refused({"a tensor beyond the model's", "ffn_down.5"}, [&](const Piece& tensor) {
    Pieces pieces = split_experts(tensor);
    if (tensor.name == down) {
      pieces.push_back(pieces[0]);
      pieces.back().name = "blk.1.ffn_down.5.weight";
    }
    return pieces;
  });
  expect_refused({"a tensor beyond the model's", "blk.07."}, [&](const Piece& tensor) {
    Piece piece = tensor;
    if (piece.name == "blk.1.attn_norm.weight") {
      piece.name = "blk.07.attn_norm.weight";
    }
    return Pieces{piece};
  });
  expect_refused({"does not hold one matrix an expert", "[5, rows"}, [&](const Piece& tensor) {
    Piece piece = tensor;
    if (piece.name == down) {
      piece.bytes = piece.bytes.first(piece.bytes.size() / 5 * 4);
      piece.shape[0] = 4;
    }
    return Pieces{piece};
  });
  expect_refused({"no tensor for a parameter", "layers.1.input_layernorm"},
                 [&](const Piece& tensor) {
                   const bool leave_out = tensor.name == "blk.1.attn_norm.weight";
                   return leave_out ? Pieces{} : Pieces{tensor};
                 });
  expect_refused({"attn_norm.weight has another shape", "[16]", "[32]"}, [&](const Piece& tensor) {
    Piece piece = tensor;
    if (piece.name == "blk.1.attn_norm.weight") {
      piece.shape = {16};
      piece.bytes = piece.bytes.first(64);
    }
    return Pieces{piece};
  });
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
