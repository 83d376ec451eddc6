// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <unistd.h>

#include "kamerton/core/error.h"
#include "kamerton/model/weights.h"
#include "kamerton/objective/objective.h"
#include "kamerton/tuning/lora.h"
#include "kamerton/tuning/peft_format.h"

#include "support/oracle.h"
#include "support/padded_batch.h"

namespace kamerton::tuning {
namespace {

using test::max_difference;
using test::oracle_path;
using test::oracle_tensor;

struct Adapted {
  std::unique_ptr<model::Decoder> decoder;
  std::optional<Lora> lora;
};

std::unique_ptr<model::Decoder> base_decoder(const std::string& name) {
  model::ModelOptions options;
  options.path = oracle_path("models/" + name).string();
  options.dtype = "fp32";
  return std::make_unique<model::Decoder>(model::read_config(options.path), options);
}

Adapted load(const std::string& base, const std::filesystem::path& folder) {
  Adapted adapted{base_decoder(base), std::nullopt};
  const PeftAdapter adapter = PeftAdapter::open(folder);
  adapted.lora = Lora::attach(*adapted.decoder, adapter.spec());
  adapter.check_complete(*adapted.lora);
  adapted.decoder->load_whole();
  for (const LoraPair& pair : adapted.lora->pairs()) {
    for (const auto& parameter : {pair.a, pair.b}) {
      at::Tensor flat = parameter->value.detach().view({-1});
      adapter.read(*parameter, 0, flat);
    }
  }
  return adapted;
}

class PeftFixture : public testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(PeftFixture, LogitsLossAndGradientsEqualPeft) {
  const std::string folder = std::string("fixtures/peft/") + GetParam().first;
  KAMERTON_NEED_ORACLE(folder);
  const auto expected =
      storage::SafetensorsFile::open(oracle_path(folder) / "expected.safetensors");
  const at::Tensor mask = oracle_tensor(expected, "attention_mask");
  const data::Batch batch = test::flat_batch(
      oracle_tensor(expected, "input_ids"), mask, oracle_tensor(expected, "labels"));
  Adapted adapted = load(GetParam().second, oracle_path(folder));

  const objective::Tokens tokens = objective::to_tokens(batch);
  {
    const at::NoGradGuard no_grad;
    const at::Tensor logits = adapted.decoder->logits(adapted.decoder->forward(tokens.rows));
    EXPECT_LT(max_difference(logits, test::unpadded(oracle_tensor(expected, "logits"), mask)),
              1e-4);
  }
  objective::TokenLoss objective;
  const at::Tensor loss =
      objective.loss(*adapted.decoder, batch, objective::Shares::of(objective.counts(batch)));
  loss.backward();
  EXPECT_NEAR(loss.item<double>(), oracle_tensor(expected, "loss").item<double>(), 2e-5);
  for (const LoraPair& pair : adapted.lora->pairs()) {
    for (const auto& parameter : {pair.a, pair.b}) {
      const at::Tensor gradient =
          oracle_tensor(expected, "grad.base_model.model." + parameter->name);
      ASSERT_TRUE(gradient.defined()) << parameter->name;
      EXPECT_LT(max_difference(parameter->accumulator(), gradient),
                1e-4 * gradient.abs().max().item<double>() + 1e-7)
          << parameter->name;
    }
  }
  adapted.lora->merge();
  const at::NoGradGuard no_grad;
  const at::Tensor merged = adapted.decoder->logits(adapted.decoder->forward(tokens.rows));
  EXPECT_LT(max_difference(merged, test::unpadded(oracle_tensor(expected, "merged_logits"), mask)),
            2e-4);
}

INSTANTIATE_TEST_SUITE_P(Lora,
                         PeftFixture,
                         testing::Values(std::pair("lora", "stories260K"),
                                         std::pair("lora_all_linear", "stories260K"),
                                         std::pair("lora_rslora", "stories260K"),
                                         std::pair("lora_rank_pattern", "stories260K"),
                                         std::pair("lora_layers_to_transform", "stories260K"),
                                         std::pair("lora_conv1d", "tiny-gpt2")),
                         [](const auto& info) { return std::string(info.param.first); });

TEST(Lora, SavedAdapterReadsBackWithEqualBits) {
  KAMERTON_NEED_ORACLE("fixtures/peft/lora_all_linear");
  Adapted first = load("stories260K", oracle_path("fixtures/peft/lora_all_linear"));
  const auto folder =
      std::filesystem::temp_directory_path() / ("kamerton-lora-" + std::to_string(getpid()));

  write_peft(
      folder,
      *first.lora,
      "stories260K",
      [](const tensor::Parameter& parameter) { return parameter.value; },
      true);
  Adapted second = load("stories260K", folder);

  ASSERT_EQ(first.lora->pairs().size(), second.lora->pairs().size());
  for (size_t i = 0; i < first.lora->pairs().size(); ++i) {
    EXPECT_TRUE(first.lora->pairs()[i].a->value.equal(second.lora->pairs()[i].a->value));
    EXPECT_TRUE(first.lora->pairs()[i].b->value.equal(second.lora->pairs()[i].b->value));
    EXPECT_EQ(first.lora->pairs()[i].scale, second.lora->pairs()[i].scale);
  }
  std::filesystem::remove_all(folder);
}

TEST(Lora, AdapterOfTransposedModulesSaysSoAndReadsBack) {
  KAMERTON_NEED_ORACLE("fixtures/peft/lora_conv1d");
  Adapted first = load("tiny-gpt2", oracle_path("fixtures/peft/lora_conv1d"));
  const auto folder =
      std::filesystem::temp_directory_path() / ("kamerton-conv1d-" + std::to_string(getpid()));
  write_peft(
      folder,
      *first.lora,
      "tiny-gpt2",
      [](const tensor::Parameter& parameter) { return parameter.value; },
      true);
  EXPECT_EQ(test::oracle_json(folder / "adapter_config.json")["fan_in_fan_out"], true);
  Adapted second = load("tiny-gpt2", folder);
  for (size_t i = 0; i < first.lora->pairs().size(); ++i) {
    EXPECT_TRUE(first.lora->pairs()[i].a->value.equal(second.lora->pairs()[i].a->value));
  }
  std::filesystem::remove_all(folder);
}

TEST(Lora, FreshAdapterChangesNothingAndIsAPureFunctionOfTheSeed) {
  tensor::Parameter a;
  a.name = "model.layers.0.self_attn.q_proj.lora_A.weight";
  a.shape = {4, 64};
  tensor::Parameter b;
  b.name = "model.layers.0.self_attn.q_proj.lora_B.weight";
  b.shape = {64, 4};
  at::Tensor whole = at::empty({256});
  at::Tensor part = at::empty({100});
  at::Tensor zeros = at::ones({256});

  Lora::initialise(a, 7, 0, whole);
  Lora::initialise(a, 7, 50, part);
  Lora::initialise(b, 7, 0, zeros);

  EXPECT_TRUE(part.equal(whole.slice(0, 50, 150)));
  EXPECT_LE(whole.abs().max().item<double>(), 1.0 / 8.0);
  EXPECT_GT(whole.std().item<double>(), 0.05);  // uniform in +-0.125: 0.072
  EXPECT_EQ(zeros.abs().max().item<double>(), 0.0);
}

TEST(Lora, TargetThatMatchesNothingIsRefusedWithTheNamesThatExist) {
  KAMERTON_NEED_ORACLE("models/stories260K");
  const auto decoder = base_decoder("stories260K");
  LoraSpec spec;
  spec.targets = {"q_prj"};

  try {
    Lora::attach(*decoder, spec);
    FAIL() << "no error";
  } catch (const core::Error& error) {
    EXPECT_EQ(error.kind(), core::ErrorKind::Config);
    EXPECT_THAT(error.what(), testing::HasSubstr("q_prj"));
    EXPECT_THAT(error.what(), testing::HasSubstr("q_proj"));
  }
}

TEST(Lora, MergeRefusesAValueThatIsNotANumber) {
  KAMERTON_NEED_ORACLE("fixtures/peft/lora");
  Adapted adapted = load("stories260K", oracle_path("fixtures/peft/lora"));
  adapted.lora->pairs()[3].b->value.detach().view({-1})[5].fill_(std::nan(""));

  EXPECT_THROW(adapted.lora->merge(), core::Error);
}

TEST(Peft, AdapterOfAnotherKindIsRefusedByName) {
  KAMERTON_NEED_ORACLE("fixtures/peft/dora");
  for (const char* name : {"dora", "ia3", "lora_bias_all", "lora_modules_to_save_head"}) {
    EXPECT_THROW(PeftAdapter::open(oracle_path(std::string("fixtures/peft/") + name)), core::Error)
        << name;
  }
}

TEST(Dropout, MaskDependsOnTheTokenNotOnItsPlaceInTheBatch) {
  KAMERTON_NEED_ORACLE("models/stories260K");
  LoraSpec spec;
  spec.r = 4;
  spec.alpha = 400;
  spec.dropout = 0.5;
  spec.targets = {"all-linear"};
  const auto decoder = base_decoder("stories260K");
  Lora lora = Lora::attach(*decoder, spec);
  decoder->load_whole();
  for (const LoraPair& pair : lora.pairs()) {
    at::Tensor flat = pair.a->value.detach().view({-1});
    Lora::initialise(*pair.a, 3, 0, flat);
    at::Tensor other = pair.b->value.detach();
    other.fill_(0.01);
  }
  const at::NoGradGuard no_grad;
  const std::vector<int64_t> one = {1, 20, 30, 40}, two = {1, 90, 80};
  lora.dropout_keys().keys_N = at::tensor({10, 11, 12, 13, 20, 21, 22}, at::kLong);
  const at::Tensor together = decoder->forward(model::Rows::from_documents({one, two}));
  lora.dropout_keys().keys_N = at::tensor({20, 21, 22}, at::kLong);
  const at::Tensor alone = decoder->forward(model::Rows::from_documents({two}));
  lora.dropout_keys().keys_N = at::Tensor();
  const at::Tensor without = decoder->forward(model::Rows::from_documents({two}));

  EXPECT_LT(max_difference(together.slice(0, 4, 7), alone), 1e-5);
  EXPECT_GT(max_difference(alone, without), 1e-2);
}

}  // namespace
}  // namespace kamerton::tuning
