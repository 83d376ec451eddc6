// SPDX-License-Identifier: Apache-2.0
// Every family against itself: caching, packing, recomputation, saving and the way of devices
// change nothing. Families without a reference file are here with random weights.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "kamerton/model/generate.h"
#include "kamerton/model/weights.h"

#include "fixture_model.h"
#include "small_model.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace kamerton::model {
namespace {

using test::documents_of;
using test::max_difference;
using test::next_tokens;

constexpr const char* kOlmo2 = R"({"architectures": ["Olmo2ForCausalLM"], "vocab_size": 97,
  "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
  "num_key_value_heads": 2, "max_position_embeddings": 64, "attention_bias": true,
  "initializer_range": 0.2})";
constexpr const char* kGranite = R"({"architectures": ["GraniteForCausalLM"], "vocab_size": 97,
  "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
  "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.2,
  "mlp_bias": true, "embedding_multiplier": 3.0, "residual_multiplier": 0.22,
  "attention_multiplier": 0.3, "logits_scaling": 2.0, "tie_word_embeddings": true})";

class FamilyTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (inline_config() == nullptr) {
      KAMERTON_NEED_ORACLE("models/" + GetParam());
    }
  }
  const char* inline_config() const {
    return GetParam() == "olmo2" ? kOlmo2 : GetParam() == "granite" ? kGranite : nullptr;
  }
  std::unique_ptr<Decoder> load(ModelOptions options = {}) const {
    return inline_config() != nullptr ? test::small_model(options, inline_config())
                                      : test::load_fixture(GetParam(), options);
  }
};

struct Outcome {
  double loss = 0;
  std::vector<at::Tensor> gradients;
};

Outcome train_once(Decoder& decoder, const std::vector<std::vector<int64_t>>& documents) {
  const tensor::TokenLoss loss =
      decoder.loss(decoder.forward(Rows::from_documents(documents)), next_tokens(documents));
  torch::autograd::backward({loss.loss}, {});
  Outcome outcome{loss.loss.item<double>(), {}};
  for (const tensor::ParameterPtr& parameter : decoder.parameters()) {
    outcome.gradients.push_back(parameter->accumulator());
  }
  return outcome;
}

/// Greedy continuation by whole forwards, without a cache.
std::vector<int64_t> naive_greedy(Decoder& decoder, std::vector<int64_t> tokens, int64_t count) {
  const at::NoGradGuard no_grad;
  std::vector<int64_t> answer;
  for (int64_t i = 0; i < count; ++i) {
    const at::Tensor hidden = decoder.forward(Rows::from_documents({tokens}));
    const at::Tensor last = decoder.logits(hidden.narrow(0, hidden.size(0) - 1, 1));
    answer.push_back(last.argmax().item<int64_t>());
    tokens.push_back(answer.back());
  }
  return answer;
}

TEST_P(FamilyTest, CachedBatchesEqualWholeForwards) {
  const auto decoder = load();
  const auto prompts = documents_of({3, 14, 1, 20, 16});  // 14 and 3 pass longrope's change at 16
  SampleOptions options;
  options.max_new_tokens = 15;
  options.ignore_stop = true;
  options.max_sequences = 3;

  const std::vector<Generated> results = generate(*decoder, prompts, options);

  for (size_t p = 0; p < prompts.size(); ++p) {
    EXPECT_EQ(results[p].tokens, naive_greedy(*decoder, prompts[p], 15)) << p;
  }
}

TEST_P(FamilyTest, CheckpointedBlocksGiveTheSameBits) {
  const auto documents = documents_of({13, 29, 6});
  ModelOptions checkpointed;
  checkpointed.activation_checkpointing = "block";

  const Outcome plain = train_once(*load(), documents);
  const Outcome again = train_once(*load(checkpointed), documents);

  EXPECT_EQ(plain.loss, again.loss);
  for (size_t i = 0; i < plain.gradients.size(); ++i) {
    EXPECT_TRUE(at::equal(plain.gradients[i], again.gradients[i])) << i;
  }
}

TEST_P(FamilyTest, PackedDocumentsEqualSeparateOnes) {
  const at::NoGradGuard no_grad;
  const auto decoder = load();
  const auto documents = documents_of({13, 1, 29, 29, 6});
  const at::Tensor packed = decoder->forward(Rows::from_documents(documents));
  int64_t begin = 0;
  for (const auto& document : documents) {
    const at::Tensor alone = decoder->forward(Rows::from_documents({document}));
    EXPECT_LT(max_difference(packed.narrow(0, begin, alone.size(0)), alone), 2e-5) << begin;
    begin += alone.size(0);
  }
}

TEST_P(FamilyTest, EmbeddingsMayBeGivenInsteadOfTokens) {
  const at::NoGradGuard no_grad;
  const auto decoder = load();
  const Rows rows = Rows::from_documents(documents_of({9, 4}));
  EXPECT_TRUE(
      at::equal(decoder->forward(rows), decoder->forward(rows, decoder->embed(rows.tokens_N))));
}

TEST_P(FamilyTest, WithoutKernelsLossAndGradientsAreTheSame) {
  const auto documents = documents_of({13, 29, 6});
  const auto single = load();
  const Outcome kernels = train_once(*single, documents);
  const auto twice = load();
  for (const tensor::ParameterPtr& parameter : twice->parameters()) {
    parameter->value = parameter->value.detach().to(at::kDouble).requires_grad_(true);
  }
  const Outcome device = train_once(*twice, documents);

  EXPECT_NEAR(device.loss, kernels.loss, 1e-5 * kernels.loss);
  for (size_t i = 0; i < device.gradients.size(); ++i) {
    const double largest = kernels.gradients[i].abs().max().item<double>();
    EXPECT_GT(largest, 0.0) << single->parameters()[i]->name;
    EXPECT_LT(max_difference(device.gradients[i], kernels.gradients[i]), 2e-5 + 2e-4 * largest)
        << single->parameters()[i]->name;
  }
}

TEST_P(FamilyTest, SavedModelLoadsWithTheSameBitsAndCountsItsParameters) {
  const auto decoder = load();
  test::TemporaryFolder folder;
  save_model(folder.path().string(), *decoder, SaveOptions{});
  ModelOptions options;
  options.path = folder.path().string();
  options.dtype = "fp32";
  Decoder loaded(read_config(options.path), options);
  loaded.load_whole();
  const auto want = decoder->parameters();
  const auto got = loaded.parameters();
  ASSERT_EQ(got.size(), want.size());
  int64_t total = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i]->name, want[i]->name);
    EXPECT_TRUE(at::equal(got[i]->value, want[i]->value)) << want[i]->name;
    total += got[i]->numel();
  }
  EXPECT_EQ(loaded.config().parameter_count(), total);
  const Rows rows = Rows::from_documents(documents_of({20, 7}));
  const at::NoGradGuard no_grad;
  EXPECT_TRUE(at::equal(loaded.forward(rows), decoder->forward(rows)));
}

std::vector<std::string> family_names() {
  std::vector<std::string> names = test::fixture_models();
  names.insert(names.end(), {"olmo2", "granite"});
  return names;
}

INSTANTIATE_TEST_SUITE_P(Families,
                         FamilyTest,
                         testing::ValuesIn(family_names()),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(Gpt2, ABareModelWithMaskBuffersIsRead) {
  KAMERTON_NEED_ORACLE("models/tiny-gpt2");
  const auto decoder = test::load_fixture("tiny-gpt2");
  test::TemporaryFolder folder;
  save_model(folder.path().string(), *decoder, SaveOptions{});
  std::filesystem::remove(folder / "model.safetensors");
  std::vector<storage::TensorDeclaration> declarations;
  for (const auto& parameter : decoder->parameters()) {
    const std::string bare = parameter->name.substr(std::string("transformer.").size());
    declarations.push_back({bare, storage::DType::F32, parameter->shape});
  }
  declarations.push_back({"h.0.attn.bias", storage::DType::F32, {1, 1, 2, 2}});
  declarations.push_back({"h.1.attn.masked_bias", storage::DType::F32, {}});
  storage::SafetensorsModelWriter writer(folder.path(), declarations);
  for (const auto& declaration : declarations) {
    const auto parameter = decoder->find_parameter("transformer." + declaration.name);
    const at::Tensor values =
        parameter == nullptr ? at::zeros(declaration.shape) : parameter->value.detach();
    writer.write(declaration.name,
                 std::span(static_cast<const std::byte*>(values.const_data_ptr()),
                           static_cast<size_t>(values.nbytes())));
  }
  writer.finish();
  ModelOptions options;
  options.path = folder.path().string();
  Decoder loaded(read_config(options.path), options);
  loaded.load_whole();
  for (size_t i = 0; i < loaded.parameters().size(); ++i) {
    EXPECT_TRUE(at::equal(loaded.parameters()[i]->value, decoder->parameters()[i]->value));
  }
}

TEST(Gpt2, MoreTokensThanPositionsAreRefused) {
  KAMERTON_NEED_ORACLE("models/tiny-gpt2");
  const auto decoder = test::load_fixture("tiny-gpt2");
  test::expect_error(core::ErrorKind::Data, {"65 tokens", "at most 64"}, [&] {
    decoder->forward(Rows::from_documents(documents_of({65})));
  });
}

}  // namespace
}  // namespace kamerton::model
