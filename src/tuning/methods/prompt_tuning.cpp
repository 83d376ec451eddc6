// SPDX-License-Identifier: Apache-2.0
// Prompt tuning (arXiv 2104.08691): trained rows before every document's own. P-tuning
// (2103.10385): the same rows, which PEFT makes with a network at training time and saves without
// it.
#include <ATen/ATen.h>

#include "../method.h"

namespace kamerton::tuning {
namespace {

class Prompt final : public model::PromptExtension {
 public:
  explicit Prompt(tensor::ParameterPtr rows) : rows_(std::move(rows)) {}
  at::Tensor rows() override { return rows_->value; }

 private:
  tensor::ParameterPtr rows_;
};

void attach_prompt_tuning(Builder& builder) {
  const model::DecoderConfig& config = builder.decoder().config();
  const int64_t count = builder.count("num_virtual_tokens");
  if (count >= config.max_positions) {
    builder.refuse("the rows leave no room for text",
                   std::to_string(count),
                   "less than the model's " + std::to_string(config.max_positions) + " positions");
  }
  auto rows = builder.add(
      0, "prompt_embeddings", {count, config.hidden_size}, Initial::normal(1), "prompt_embeddings");
  builder.decoder().extensions().prompt = std::make_shared<Prompt>(rows);
  builder.decoder().extensions().lead_rows = count;
  builder.refuse_merge("it is rows of the input");
  builder.stays_on();
}

std::vector<Setting> prompt_settings(bool encoder) {
  std::vector<Setting> settings = {
      {"num_virtual_tokens", 20, "rows before every document; the context is so much shorter"},
      {"token_dim", nullptr, "hidden size"},
      {"num_layers", nullptr, "of the base"},
      {"num_attention_heads", nullptr, "of the base"},
      {"num_transformer_submodules", 1, "1: decoder only"}};
  if (encoder) {
    settings.push_back({"encoder_hidden_size", nullptr, "of the network that PEFT trains"});
    settings.push_back(
        {"encoder_reparameterization_type", "MLP", "of the network that PEFT trains"});
  } else {
    settings.push_back({"prompt_tuning_init", "RANDOM", "how the rows start"});
  }
  return settings;
}

}  // namespace

Method prompt_tuning_method() {
  return {.name = "prompt_tuning",
          .peft_type = "PROMPT_TUNING",
          .text = "trained rows before the input (arXiv 2104.08691)",
          .settings = prompt_settings(false),
          .targets = {},
          .attach = attach_prompt_tuning};
}

Method p_tuning_method() {
  return {.name = "p_tuning",
          .peft_type = "P_TUNING",
          .text = "the rows of a P-tuning prompt (arXiv 2103.10385), trained directly",
          .settings = prompt_settings(true),
          .targets = {},
          .attach = attach_prompt_tuning};
}

}  // namespace kamerton::tuning
