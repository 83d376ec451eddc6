// SPDX-License-Identifier: Apache-2.0
#include "kamerton/tuning/adapter.h"

#include <algorithm>
#include <functional>
#include <regex>
#include <set>

#include <gmock/gmock.h>
#include <unistd.h>

#include "kamerton/core/error.h"
#include "kamerton/model/generate.h"
#include "kamerton/model/weights.h"
#include "kamerton/objective/objective.h"
#include "kamerton/tuning/peft_format.h"

#include "adapted.h"
#include "support/padded_batch.h"

namespace kamerton::tuning {
namespace {

using test::max_difference;
using test::oracle_tensor;

/// AdapterHub's gradients have the names of its parameters.
std::string hub_name(const std::string& key) {
  std::string name =
      std::regex_replace(key.substr(17), std::regex("_adapters\\."), "_adapters.adapters.fixture.");
  return std::regex_replace(name, std::regex("adapter_down\\."), "adapter_down.0.");
}

/// The gradient of an entry as the fixture has it.
at::Tensor expected_gradient(const storage::SafetensorsFile& file, const AdapterEntry& entry) {
  at::Tensor gradient = oracle_tensor(file, "grad." + entry.key);
  if (!gradient.defined()) {
    gradient = oracle_tensor(file, "grad." + hub_name(entry.key));
  }
  const int64_t width = entry.parameter->shape.back();
  return entry.places > 1 && gradient.defined() ? gradient.narrow(-1, entry.place * width, width)
                                                : gradient;
}

/// PEFT adds to AdaLoRA's loss how far A and B are from orthogonal, which is the engine's part here
/// (optim/rank_budget.h): 0.5 times the mean of |A A^T - I| and |B^T B - I|. Adds it to the
/// gradients.
double adalora_penalty(const Adapter& adapter) {
  at::Tensor sum = at::zeros({});
  int64_t count = 0;
  for (const AdapterEntry& entry : adapter.entries()) {
    const bool a = entry.key.ends_with(".lora_A");
    if (adapter.spec().method != "adalora" || !(a || entry.key.ends_with(".lora_B"))) {
      continue;
    }
    const at::Tensor& p = entry.parameter->value;
    const at::Tensor gram = a ? at::mm(p, p.t()) : at::mm(p.t(), p);
    sum = sum + (gram - at::eye(gram.size(0))).norm();
    ++count;
  }
  if (count == 0) {
    return 0.0;
  }
  const at::Tensor penalty = sum * (0.5 / static_cast<double>(count));
  penalty.backward();
  return penalty.item<double>();
}

struct Fixture {
  const char* name;
  const char* base = "stories260K";
  double merged_tolerance = 2e-4;
  double gradient_tolerance = 1e-4;  ///< of the largest
  double logits_tolerance = 1e-4;
};

class PeftFixture : public testing::TestWithParam<Fixture> {};

TEST_P(PeftFixture, LogitsLossGradientsAndMergedWeightsEqualTheReference) {
  const std::string folder = std::string("fixtures/peft/") + GetParam().name;
  KAMERTON_NEED_ORACLE(folder);
  const auto expected =
      storage::SafetensorsFile::open(oracle_path(folder) / "expected.safetensors");
  const at::Tensor mask = oracle_tensor(expected, "attention_mask");
  const data::Batch batch = test::flat_batch(
      oracle_tensor(expected, "input_ids"), mask, oracle_tensor(expected, "labels"));
  Adapted adapted = load(GetParam().base, oracle_path(folder));

  const objective::Tokens tokens = objective::to_tokens(batch);
  const auto logits = [&] {
    const at::NoGradGuard no_grad;
    return adapted.decoder->logits(adapted.decoder->forward(tokens.rows));
  };
  EXPECT_LT(max_difference(logits(), test::unpadded(oracle_tensor(expected, "logits"), mask)),
            GetParam().logits_tolerance);
  objective::TokenLoss objective;
  const at::Tensor loss =
      objective.loss(*adapted.decoder, batch, objective::Shares::of(objective.counts(batch)));
  const at::Tensor expected_loss = oracle_tensor(expected, "loss");
  loss.backward();
  const double penalty = adalora_penalty(*adapted.adapter);
  if (expected_loss.defined()) {
    EXPECT_NEAR(loss.item<double>() + penalty, expected_loss.item<double>(), 2e-5);
  }
  const bool has_gradients =
      std::any_of(expected.entries().begin(), expected.entries().end(), [](const auto& entry) {
        return entry.name.starts_with("grad.");
      });
  for (const AdapterEntry& entry : adapted.adapter->entries()) {
    const at::Tensor gradient = expected_gradient(expected, entry);
    ASSERT_EQ(gradient.defined(), has_gradients) << entry.key;
    if (has_gradients) {
      EXPECT_LT(max_difference(entry.parameter->accumulator(), gradient),
                GetParam().gradient_tolerance * gradient.abs().max().item<double>() + 1e-7)
          << entry.key;
    }
  }
  const at::Tensor expected_merged = oracle_tensor(expected, "merged_logits");
  ASSERT_EQ(adapted.adapter->can_merge(), expected_merged.defined());
  if (expected_merged.defined()) {
    adapted.adapter->merge();
    EXPECT_LT(max_difference(logits(), test::unpadded(expected_merged, mask)),
              GetParam().merged_tolerance);
  }
}

INSTANTIATE_TEST_SUITE_P(Peft,
                         PeftFixture,
                         testing::Values(Fixture{"lora"},
                                         Fixture{"lora_all_linear"},
                                         Fixture{"lora_rslora"},
                                         Fixture{"lora_rank_pattern"},
                                         Fixture{"lora_layers_to_transform"},
                                         Fixture{"lora_conv1d", "tiny-gpt2"},
                                         Fixture{"lora_mistral_sharded", "tiny-mistral"},
                                         Fixture{"lora_modules_to_save_head"},
                                         Fixture{"lora_modules_to_save_norm"},
                                         Fixture{"lora_embedding"},
                                         Fixture{"lora_bias_all", "tiny-qwen2"},
                                         Fixture{"dora"},
                                         Fixture{"pissa_converted"},
                                         Fixture{"ia3"},
                                         Fixture{"vera"},
                                         Fixture{"adalora"},
                                         Fixture{"loha"},
                                         Fixture{"lokr"},
                                         Fixture{"oft"},
                                         Fixture{"boft"},
                                         Fixture{"hra"},
                                         Fixture{"miss"},
                                         Fixture{"miss_bat"},
                                         Fixture{"ln_tuning"},
                                         Fixture{"trainable_tokens"},
                                         Fixture{"fourierft"},
                                         // The reference's own logits and gradients in float64
                                         // are 4.3e-3 and 1.8e-2 away from its float32 ones.
                                         Fixture{"randlora", "stories260K", 2e-2, 2e-2, 5e-3},
                                         Fixture{"shira"},
                                         Fixture{"prompt_tuning"},
                                         Fixture{"prefix_tuning"},
                                         Fixture{"prefix_tuning_projection"},
                                         Fixture{"p_tuning_mlp"},
                                         Fixture{"p_tuning_lstm"},
                                         Fixture{"bottleneck_pfeiffer"},
                                         Fixture{"bottleneck_houlsby"},
                                         Fixture{"bottleneck_parallel"},
                                         Fixture{"bottleneck_pfeiffer_gpt2", "tiny-gpt2"},
                                         Fixture{"bottleneck_houlsby_gpt2", "tiny-gpt2"}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(PeftFixture, WrittenAgainReadsBackWithEqualBits) {
  const std::string name = std::string("fixtures/peft/") + GetParam().name;
  KAMERTON_NEED_ORACLE(name);
  Adapted first = load(GetParam().base, oracle_path(name));
  const auto folder = scratch(GetParam().name);

  write_peft(folder, *first.adapter, GetParam().base, value_of, true);
  Adapted second = load(GetParam().base, folder);

  ASSERT_EQ(first.adapter->entries().size(), second.adapter->entries().size());
  for (size_t i = 0; i < first.adapter->entries().size(); ++i) {
    EXPECT_TRUE(first.adapter->entries()[i].parameter->value.equal(
        second.adapter->entries()[i].parameter->value));
  }
  EXPECT_EQ(*first.adapter->spec().settings, *second.adapter->spec().settings);
  EXPECT_EQ(first.adapter->spec().targets, second.adapter->spec().targets);
  std::filesystem::remove_all(folder);
}

TEST_P(PeftFixture, OffIsTheBaseAndUnmergeGivesEqualBits) {
  const std::string name = std::string("fixtures/peft/") + GetParam().name;
  KAMERTON_NEED_ORACLE(name);
  Adapted adapted = load(GetParam().base, oracle_path(name));
  const auto base = base_decoder(GetParam().base);
  base->load_whole();
  const at::NoGradGuard no_grad;
  const auto rows = model::Rows::from_documents({{1, 20, 30, 40}, {1, 9, 80}});
  const at::Tensor plain = base->forward(rows);

  const at::Tensor adapted_to = adapted.decoder->forward(rows);
  if (adapted.adapter->can_switch_off()) {
    const AdapterSwitch off(*adapted.adapter);
    EXPECT_TRUE(adapted.decoder->forward(rows).equal(plain));
  }
  if (adapted.adapter->can_merge()) {
    adapted.adapter->merge(true);
    const at::Tensor once = adapted.decoder->forward(rows);
    adapted.adapter->merge(true);
    EXPECT_TRUE(adapted.decoder->forward(rows).equal(once));
    adapted.adapter->unmerge();
    EXPECT_TRUE(adapted.decoder->forward(rows).equal(adapted_to));
  }
}

/// With keys and values kept, several sequences at once, as without.
TEST(Adapter, GenerationWithCacheEqualsWholeForwards) {
  for (const char* name :
       {"prompt_tuning", "prefix_tuning", "bottleneck_houlsby", "lora_embedding", "oft"}) {
    const std::string folder = std::string("fixtures/peft/") + name;
    KAMERTON_NEED_ORACLE(folder);
    Adapted adapted = load("stories260K", oracle_path(folder));
    model::SampleOptions options;
    options.max_new_tokens = 6;
    options.ignore_stop = true;
    const std::vector<std::vector<int64_t>> prompts = {{1, 20, 30, 40}, {1, 9, 80}};
    const auto answers = model::generate(*adapted.decoder, prompts, options);

    const at::NoGradGuard no_grad;
    for (size_t p = 0; p < prompts.size(); ++p) {
      std::vector<int64_t> seen = prompts[p];
      for (const int64_t token : answers[p].tokens) {
        const at::Tensor hidden = adapted.decoder->forward(model::Rows::from_documents({seen}));
        const at::Tensor logits = adapted.decoder->logits(hidden.narrow(0, hidden.size(0) - 1, 1));
        EXPECT_EQ(logits.argmax().item<int64_t>(), token) << name;
        seen.push_back(token);
      }
    }
  }
}

TEST(Peft, ConfigurationOfTransposedModulesSaysSo) {
  KAMERTON_NEED_ORACLE("fixtures/peft/lora_conv1d");
  Adapted first = load("tiny-gpt2", oracle_path("fixtures/peft/lora_conv1d"));
  const auto folder = scratch("conv1d");
  write_peft(folder, *first.adapter, "tiny-gpt2", value_of, true);
  EXPECT_EQ(test::oracle_json(folder / "adapter_config.json")["fan_in_fan_out"], true);
  std::filesystem::remove_all(folder);
}

TEST(Adapter, OfAnotherBaseIsRefusedByShapeAndByName) {
  KAMERTON_NEED_ORACLE("fixtures/peft/lora_bias_all");
  EXPECT_THAT(
      refusal([] { load("tiny-qwen2", oracle_path("fixtures/peft/lora")); }, core::ErrorKind::Data),
      testing::HasSubstr("shape"));
  EXPECT_THAT(refusal([] { load("tiny-gpt2", oracle_path("fixtures/peft/lora")); },
                      core::ErrorKind::Config),
              testing::HasSubstr("q_proj"));
}

TEST(Adapter, MergeRefusesAValueThatIsNotANumberAndChangesNothing) {
  KAMERTON_NEED_ORACLE("fixtures/peft/lora");
  Adapted adapted = load("stories260K", oracle_path("fixtures/peft/lora"));
  const auto& entries = adapted.adapter->entries();
  entries[7].parameter->value.detach().view({-1})[5].fill_(std::nan(""));
  const at::Tensor before =
      adapted.decoder->find_linear("model.layers.0.self_attn.q_proj")->weight->value.clone();

  EXPECT_THROW(adapted.adapter->merge(), core::Error);

  EXPECT_TRUE(
      adapted.decoder->find_linear("model.layers.0.self_attn.q_proj")->weight->value.equal(before));
}

}  // namespace
}  // namespace kamerton::tuning
