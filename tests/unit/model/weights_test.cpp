// SPDX-License-Identifier: Apache-2.0
#include "kamerton/model/weights.h"

#include <cstring>
#include <filesystem>
#include <fstream>

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/json.h"
#include "kamerton/storage/safetensors.h"

#include "small_model.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace kamerton::model {
namespace {

using core::ErrorKind;
using test::small_model;

/// A saved small model that a test may damage.
class SavedModel : public testing::Test {
 protected:
  void SetUp() override {
    decoder_ = small_model();
    save(at::kFloat);
  }
  void save(at::ScalarType dtype, int64_t shard = int64_t{1} << 40) {
    save_model(folder_.path().string(), *decoder_, {.dtype = dtype, .max_shard_bytes = shard});
  }
  std::unique_ptr<Decoder> load(const std::string& dtype = "fp32") {
    ModelOptions options;
    options.path = folder_.path().string();
    options.dtype = dtype;
    auto decoder = std::make_unique<Decoder>(read_config(options.path), options);
    decoder->load_whole();
    return decoder;
  }
  void edit_config(const std::string& key, const core::Json& value) {
    core::Json object = core::parse_json(test::read_text(folder_ / "config.json"), "config.json");
    object[key] = value;
    test::write_text(folder_ / "config.json", object.dump());
  }
  /// Overwrites one float of a tensor in the file.
  void poison(const std::string& name, int64_t element, float value) {
    const auto path = folder_ / "model.safetensors";
    uint64_t at = 0;
    {
      const auto file = storage::SafetensorsFile::open(path);
      at = file.find(name)->offset + static_cast<uint64_t>(element) * 4;
    }
    std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(static_cast<std::streamoff>(at));
    file.write(reinterpret_cast<const char*>(&value), 4);
  }
  test::TemporaryFolder folder_;
  std::unique_ptr<Decoder> decoder_;
};

TEST_F(SavedModel, LoadsWithTheSameBits) {
  const auto loaded = load();
  const auto want = decoder_->parameters();
  const auto got = loaded->parameters();
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i]->name, want[i]->name);
    EXPECT_TRUE(at::equal(got[i]->value, want[i]->value));
  }
  EXPECT_EQ(loaded->config().eos_ids, (std::vector<int64_t>{2, 5}));
}

TEST_F(SavedModel, ShardsHoldTheSameModelAndRoundingIsToBfloat) {
  save(at::kBFloat16, 4096);
  EXPECT_TRUE(std::filesystem::exists(folder_ / "model.safetensors.index.json"));
  const auto loaded = load();
  EXPECT_EQ(loaded->config().stored_dtype, at::kBFloat16);
  const at::Tensor want = decoder_->parameters()[3]->value.to(at::kBFloat16).to(at::kFloat);
  EXPECT_TRUE(at::equal(loaded->parameters()[3]->value, want));
}

TEST_F(SavedModel, SlicesEqualTheWholeTensor) {
  ModelOptions options;
  options.path = folder_.path().string();
  const auto source = open_weights(options, *decoder_);
  const tensor::Parameter& parameter = *decoder_->parameters()[0];
  at::Tensor slice = at::empty({1000});
  source->read(parameter, 77, slice);
  EXPECT_TRUE(at::equal(slice, parameter.value.detach().view({-1}).narrow(0, 77, 1000)));

  options.random_init = true;  // random numbers are a function of the element, too
  open_weights(options, *decoder_)->read(parameter, 77, slice);
  EXPECT_TRUE(at::equal(slice, parameter.value.detach().view({-1}).narrow(0, 77, 1000)));
}

TEST_F(SavedModel, StreamsThroughACallbackInUnitOrder) {
  std::vector<std::string> order;
  test::TemporaryFolder target;
  save_model(target.path().string(),
             *decoder_,
             [&](const tensor::Parameter& parameter) {
               order.push_back(parameter.name);
               return parameter.value.detach();
             },
             {.copy_from = folder_.path().string()});
  EXPECT_EQ(order.front(), "model.embed_tokens.weight");
  EXPECT_EQ(order.back(), "model.norm.weight");
  EXPECT_TRUE(std::filesystem::exists(target / "generation_config.json"));
}

TEST_F(SavedModel, RefusesAnotherShape) {
  edit_config("intermediate_size", 56);
  test::expect_error(
      ErrorKind::Data, {"mlp.", "another shape", "[48, 32]", "[56, 32]"}, [&] { load(); });
}

TEST_F(SavedModel, RefusesMissingAndSurplusTensorsByName) {
  edit_config("num_hidden_layers", 4);
  test::expect_error(
      ErrorKind::Data, {"lacks", "model.layers.3.input_layernorm.weight", "more"}, [&] { load(); });
  edit_config("num_hidden_layers", 2);
  test::expect_error(ErrorKind::Data, {"does not have", "model.layers.2."}, [&] { load(); });
  edit_config("num_hidden_layers", 3);
  edit_config("tie_word_embeddings", false);
  test::expect_error(ErrorKind::Data, {"lacks", "lm_head.weight"}, [&] { load(); });
}

TEST_F(SavedModel, RefusesValuesThatAreNotFinite) {
  poison("model.layers.1.mlp.up_proj.weight", 700, std::nanf(""));
  test::expect_error(ErrorKind::Numeric,
                     {"model.layers.1.mlp.up_proj.weight", "not finite", "nan at element 700"},
                     [&] { load(); });
}

TEST_F(SavedModel, RefusesATruncatedFileAndAnEmptyFolder) {
  const auto path = folder_ / "model.safetensors";
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 1);
  test::expect_error(ErrorKind::Data, {"model.safetensors"}, [&] { load(); });
  std::filesystem::remove(path);
  test::expect_error(ErrorKind::Data, {}, [&] { load(); });
}

TEST_F(SavedModel, ToleratesBuffersOfOlderVersionsAndNamesWithoutPrefix) {
  std::vector<storage::TensorDeclaration> declarations;
  for (const auto& parameter : decoder_->parameters()) {
    declarations.push_back(
        {parameter->name.substr(6), storage::DType::F32, parameter->shape});  // "model."
  }
  declarations.push_back({"layers.0.self_attn.rotary_emb.inv_freq", storage::DType::F32, {4}});
  storage::SafetensorsModelWriter writer(folder_.path(), declarations);
  for (const auto& declaration : declarations) {
    const auto parameter = decoder_->find_parameter("model." + declaration.name);
    const at::Tensor values =
        parameter == nullptr ? at::zeros({4}) : parameter->value.detach().contiguous();
    writer.write(declaration.name,
                 std::span(static_cast<const std::byte*>(values.const_data_ptr()),
                           static_cast<size_t>(values.nbytes())));
  }
  writer.finish();
  EXPECT_TRUE(at::equal(load()->parameters()[4]->value, decoder_->parameters()[4]->value));
}

TEST_F(SavedModel, AHeadBesideATiedEmbeddingMustBeItsCopy) {
  core::Json untied = core::parse_json(test::kSmallConfig, "small");
  untied["tie_word_embeddings"] = false;
  decoder_ = small_model({}, untied.dump());
  save(at::kFloat);
  edit_config("tie_word_embeddings", true);
  test::expect_error(
      ErrorKind::Data, {"ties the head", "lm_head.weight", "tie_word_embeddings"}, [&] { load(); });
  const at::Tensor embedding = decoder_->find_parameter("model.embed_tokens.weight")->value;
  {
    const at::NoGradGuard no_grad;
    decoder_->find_parameter("lm_head.weight")->value.copy_(embedding);
  }
  save(at::kFloat);
  edit_config("tie_word_embeddings", true);
  EXPECT_TRUE(at::equal(load()->find_parameter("model.embed_tokens.weight")->value, embedding));
}

TEST_F(SavedModel, AFileCutShortAfterOpeningIsAnErrorWithItsName) {
  ModelOptions options;
  options.path = folder_.path().string();
  options.dtype = "fp32";
  const Decoder decoder(read_config(options.path), options);
  const auto source = open_weights(options, decoder);
  const auto path = folder_ / "model.safetensors";
  std::filesystem::resize_file(path, std::filesystem::file_size(path) / 2);

  test::expect_error(ErrorKind::Io, {"model.safetensors", "cut short"}, [&] {
    for (const tensor::ParameterPtr& parameter : decoder.parameters()) {
      source->read(*parameter, 0, at::empty({parameter->numel()}));
    }
  });
}

TEST_F(SavedModel, PickledWeightsAreReadOnlyWhenAskedFor) {
  std::filesystem::remove(folder_ / "model.safetensors");
  test::write_text(folder_ / "pytorch_model.bin", "no archive");

  test::expect_error(ErrorKind::Config, {"allow_pickle", "pytorch_model.bin"}, [&] { load(); });
  ModelOptions options;
  options.path = folder_.path().string();
  options.allow_pickle = true;
  test::expect_error(ErrorKind::Data, {"no zip archive"}, [&] {
    open_weights(options, Decoder(read_config(options.path), options));
  });
}

}  // namespace
}  // namespace kamerton::model
