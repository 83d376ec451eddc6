// SPDX-License-Identifier: Apache-2.0
// Prefix tuning (arXiv 2101.00190): trained keys and values of every layer before a document's own.
// PEFT keeps them as one [P, layers * 2 * kv_size]: even parts keys, odd parts values.
#include <ATen/ATen.h>

#include "../method.h"

namespace kamerton::tuning {
namespace {

class PrefixBlock final : public model::BlockExtension {
 public:
  PrefixBlock(tensor::ParameterPtr keys, tensor::ParameterPtr values)
      : keys_(std::move(keys)), values_(std::move(values)) {}
  at::Tensor prefix_keys() override { return keys_->value; }
  at::Tensor prefix_values() override { return values_->value; }

 private:
  tensor::ParameterPtr keys_, values_;
};

void attach_prefix_tuning(Builder& builder) {
  const model::DecoderConfig& config = builder.decoder().config();
  const int64_t count = builder.count("num_virtual_tokens");
  if (count >= config.max_positions) {
    builder.refuse("the rows leave no room for text",
                   std::to_string(count),
                   "less than the model's " + std::to_string(config.max_positions) + " positions");
  }
  const std::vector<int64_t> shape = {count, config.kv_size()};
  auto& extensions = builder.decoder().extensions();
  for (int64_t i = 0; i < config.layers; ++i) {
    const auto part = [&](const char* kind, int64_t place) {
      const std::string name = config.names.layers + "." + std::to_string(i) + ".prefix_" + kind;
      auto parameter = builder.add(
          static_cast<int>(i) + 1, name, shape, Initial::normal(1), "prompt_embeddings");
      builder.part_of_columns(place, 2 * config.layers);
      return parameter;
    };
    auto keys = part("keys", 2 * i);
    extensions.blocks.push_back(std::make_shared<PrefixBlock>(keys, part("values", 2 * i + 1)));
  }
  extensions.lead_rows = count;
  builder.settle("num_layers", config.layers);
  builder.settle("num_attention_heads", config.kv_heads);
  builder.settle("token_dim", config.kv_size());
  builder.refuse_merge("it is rows of the attention");
  builder.stays_on();
}

}  // namespace

Method prefix_tuning_method() {
  return {.name = "prefix_tuning",
          .peft_type = "PREFIX_TUNING",
          .text = "trained keys and values before the input's (arXiv 2101.00190)",
          .settings = {{"num_virtual_tokens", 20, "keys and values before every document"},
                       {"token_dim", nullptr, "of the base: keys of all heads"},
                       {"num_layers", nullptr, "of the base"},
                       {"num_attention_heads", nullptr, "of the base"},
                       {"num_transformer_submodules", 1, "1: decoder only"},
                       {"encoder_hidden_size", nullptr, "of the network that PEFT trains"},
                       {"prefix_projection", false, "PEFT trained it through a network"}},
          .targets = {},
          .attach = attach_prefix_tuning};
}

}  // namespace kamerton::tuning
