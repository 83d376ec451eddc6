// SPDX-License-Identifier: Apache-2.0
// How adapters start, and what is refused before they do.
#include <regex>
#include <set>

#include <gmock/gmock.h>

#include "adapted.h"

namespace kamerton::tuning {
namespace {

using test::max_difference;
using test::oracle_tensor;

class Fresh : public testing::TestWithParam<std::pair<const char*, std::vector<std::string>>> {};

TEST_P(Fresh, AdapterStartsAsTheBaseAndTrainsOnlyItself) {
  KAMERTON_NEED_ORACLE("models/tiny-qwen2");
  const auto base = base_decoder("tiny-qwen2");
  base->load_whole();
  Adapted adapted = start("tiny-qwen2", fresh(GetParam().first, GetParam().second));
  const auto rows = model::Rows::from_documents({{1, 20, 30, 40}, {1, 9, 80}});

  const at::NoGradGuard no_grad;
  EXPECT_LT(max_difference(adapted.decoder->forward(rows), base->forward(rows)), 2e-4);
  std::set<const tensor::Parameter*> own;
  for (const AdapterEntry& entry : adapted.adapter->entries()) {
    own.insert(entry.parameter.get());
  }
  for (const tensor::ParameterPtr& parameter : adapted.decoder->parameters()) {
    EXPECT_EQ(parameter->trainable, own.count(parameter.get()) != 0) << parameter->name;
  }
}

using Case = std::pair<const char*, std::vector<std::string>>;
INSTANTIATE_TEST_SUITE_P(Methods,
                         Fresh,
                         testing::Values(Case{"lora", {}},
                                         Case{"lora", {"use_dora=true"}},
                                         Case{"lora", {"init_lora_weights=pissa"}},
                                         Case{"lora", {"init_lora_weights=olora"}},
                                         Case{"ia3", {}},
                                         Case{"vera", {}},
                                         Case{"adalora", {}},
                                         Case{"loha", {}},
                                         Case{"lokr", {"decompose_both=true", "r=1"}},
                                         Case{"oft", {"oft_block_size=8"}},
                                         Case{"oft", {"use_cayley_neumann=false"}},
                                         Case{"boft", {}},
                                         Case{"hra", {}},
                                         Case{"miss", {"r=8"}},
                                         Case{"miss", {"r=5"}},
                                         Case{"miss", {"r=8", "init_weights=mini", "mini_r=4"}},
                                         Case{"fourierft", {"init_weights=true"}},
                                         Case{"randlora", {}},
                                         Case{"shira", {"r=4", "random_seed=3"}},
                                         Case{"ln_tuning", {}},
                                         Case{"trainable_tokens", {"token_indices=[5, 9]"}},
                                         Case{"parallel", {}},
                                         Case{"partial", {}},
                                         Case{"bitfit", {}}),
                         [](const auto& info) {
                           std::string name = info.param.first;
                           for (const std::string& setting : info.param.second) {
                             name += "_" + setting;
                           }
                           return std::regex_replace(name, std::regex("[^A-Za-z0-9]+"), "_");
                         });

TEST(Pissa, StartEqualsTheReferenceAndIsWrittenForTheUntouchedBase) {
  KAMERTON_NEED_ORACLE("fixtures/peft/pissa_converted");
  const auto expected = storage::SafetensorsFile::open(
      oracle_path("fixtures/peft/pissa_converted") / "expected.safetensors");
  Adapted adapted = start(
      "stories260K",
      fresh("lora", {"init_lora_weights=pissa", "r=8", "lora_alpha=8"}, {"q_proj", "v_proj"}));
  const model::Linear* q = adapted.decoder->find_linear("model.layers.0.self_attn.q_proj");
  EXPECT_LT(max_difference(q->weight->value.detach(),
                           oracle_tensor(expected, "residual_base.layers.0.q_proj")),
            2e-5);
  const PeftAdapter init =
      PeftAdapter::open(oracle_path("fixtures/peft/pissa_converted") / "pissa_init");
  for (const AdapterEntry& entry : adapted.adapter->entries()) {  // up to the sign of a part
    EXPECT_LT(max_difference(entry.parameter->value.detach().abs(), init.tensor(entry.key).abs()),
              2e-4)
        << entry.key;
  }

  const at::NoGradGuard no_grad;
  adapted.adapter->entries()[1].parameter->value.detach().mul_(1.5);  // as if trained
  const auto rows = model::Rows::from_documents({{1, 20, 30, 40}});
  const at::Tensor trained = adapted.decoder->forward(rows);
  const auto whole = base_decoder("stories260K");
  whole->load_whole();
  const auto folder = scratch("pissa");
  write_peft(folder,
             *adapted.adapter,
             "stories260K",
             value_of,
             true,
             {7, [&](const tensor::Parameter& parameter) {
                return whole->find_parameter(parameter.name)->value.detach();
              }});
  Adapted again = load("stories260K", folder);
  EXPECT_EQ((*again.adapter->spec().settings)["r"], 16);
  EXPECT_LT(max_difference(again.decoder->forward(rows), trained), 1e-4);
  std::filesystem::remove_all(folder);
}

TEST(Adapter, InitialValueIsAPureFunctionOfSeedAndElement) {
  KAMERTON_NEED_ORACLE("models/stories260K");
  Adapted adapted = start("stories260K", fresh("lora", {"r=4"}, {"q_proj"}));
  const tensor::Parameter& a = *adapted.adapter->entries()[0].parameter;
  at::Tensor whole = at::empty({256});
  at::Tensor part = at::empty({100});

  adapted.adapter->initialise(a, 7, 0, whole);
  adapted.adapter->initialise(a, 7, 50, part);

  EXPECT_TRUE(part.equal(whole.slice(0, 50, 150)));
  EXPECT_LE(whole.abs().max().item<double>(), 1.0 / 8.0);
  EXPECT_GT(whole.std().item<double>(), 0.05);  // uniform in +-0.125: 0.072
}

TEST(Adapter, TargetThatMatchesNothingIsRefusedWithTheNearestName) {
  KAMERTON_NEED_ORACLE("models/stories260K");
  const auto decoder = base_decoder("stories260K");
  for (const char* method : {"lora", "ia3", "oft", "ln_tuning"}) {
    const std::string text = refusal(
        [&] { Adapter::attach(*decoder, fresh(method, {}, {"q_prj"})); }, core::ErrorKind::Config);
    EXPECT_THAT(text, testing::HasSubstr("q_prj"));
    EXPECT_THAT(text, testing::HasSubstr("try q_proj"));
  }
}

TEST(Adapter, SettingsAreCheckedByNameTypeAndRange) {
  const auto text = [](const char* method, const char* setting) {
    return refusal([&] { fresh(method, {setting}); }, core::ErrorKind::Config);
  };
  EXPECT_THAT(text("lora", "lora_alpa=8"), testing::HasSubstr("try lora_alpha"));
  EXPECT_THAT(text("lora", "r=0"), testing::HasSubstr("1 or more"));
  EXPECT_THAT(text("vera", "r=many"), testing::HasSubstr("another type"));
  EXPECT_THAT(refusal([] { fresh("lorra"); }, core::ErrorKind::Config),
              testing::HasSubstr("try lora"));
}

TEST(Dropout, MaskDependsOnTheTokenNotOnItsPlaceInTheBatch) {
  KAMERTON_NEED_ORACLE("models/stories260K");
  Adapted adapted =
      start("stories260K", fresh("lora", {"r=4", "lora_alpha=400", "lora_dropout=0.5"}));
  const auto& decoder = adapted.decoder;
  Adapter& lora = *adapted.adapter;
  const at::NoGradGuard no_grad;
  for (size_t i = 1; i < lora.entries().size(); i += 2) {
    lora.entries()[i].parameter->value.detach().fill_(0.01);
  }
  const std::vector<int64_t> one = {1, 20, 30, 40}, two = {1, 90, 80};
  lora.dropout_keys().keys_N = at::tensor({10, 11, 12, 13, 20, 21, 22}, at::kLong);
  const at::Tensor together = decoder->forward(model::Rows::from_documents({one, two}));
  lora.dropout_keys().keys_N = at::tensor({20, 21, 22}, at::kLong);
  const at::Tensor alone = decoder->forward(model::Rows::from_documents({two}));
  lora.dropout_keys().keys_N = at::Tensor();
  const at::Tensor without = decoder->forward(model::Rows::from_documents({two}));

  EXPECT_LT(max_difference(together.slice(0, 4, 7), alone), 1e-4);
  EXPECT_GT(max_difference(alone, without), 1e-2);
}

}  // namespace
}  // namespace kamerton::tuning
