// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include "../layer_types.h"
#include "family.h"

namespace kamerton::model {
namespace {

void defaults(DecoderConfig& config) {
  config.names.attention_out_norm = "post_attention_layernorm";
  config.names.feed_forward_norm = "pre_feedforward_layernorm";
  config.names.feed_forward_out_norm = "post_feedforward_layernorm";
  config.norm = NormKind::RmsPlusOne;
  config.activation_name = "gelu_pytorch_tanh";
  config.vocab_size = 256000;
  config.hidden_size = 2304;
  config.intermediate_size = 9216;
  config.layers = 26;
  config.heads = 8;
  config.kv_heads = 4;
  config.head_dim = 256;
  config.max_positions = 8192;
  config.tied_head = true;
  config.bos_id = 2;
  config.eos_ids = {1};
  config.pad_id = 0;
}

void read(const ConfigReader& reader, DecoderConfig& config) {
  read_gemma(reader, 50.0, 30.0, config);
  const int64_t window = reader.size_or_none("sliding_window", 4096, int64_t{1} << 40);
  read_layer_types(
      reader, window, [](int64_t layer) { return layer % 2 == 0; }, config);
}

void write(const DecoderConfig& config, core::Json& out) {
  write_gemma(config, out);
}

}  // namespace

void read_gemma(const ConfigReader& reader,
                double attention_cap,
                double logit_cap,
                DecoderConfig& config) {
  if (reader.flag("use_bidirectional_attention", false)) {
    reader.refuse("use_bidirectional_attention",
                  "attention to later tokens is not supported",
                  "true",
                  "false");
  }
  config.qkv_bias = config.output_bias = reader.flag("attention_bias", false);
  config.attention_scale = 1.0 / std::sqrt(reader.positive({"query_pre_attn_scalar"}, 256.0));
  config.attention_cap = reader.positive_or_none("attn_logit_softcapping", attention_cap);
  config.logit_cap = reader.positive_or_none("final_logit_softcapping", logit_cap);
  config.embedding_scale = std::sqrt(static_cast<double>(config.hidden_size));
}

void write_gemma(const DecoderConfig& config, core::Json& out) {
  const auto cap = [](double value) { return value > 0 ? core::Json(value) : core::Json(); };
  out["attention_bias"] = config.qkv_bias;
  out["attn_logit_softcapping"] = cap(config.attention_cap);
  out["final_logit_softcapping"] = cap(config.logit_cap);
  out["layer_types"] = layer_types_json(config);
  const int64_t window = *std::max_element(config.windows.begin(), config.windows.end());
  if (window > 0) {
    out["sliding_window"] = window;
  }
  if (!out.contains("query_pre_attn_scalar")) {
    out["query_pre_attn_scalar"] = std::lround(1.0 / std::pow(config.attention_scale, 2));
  }
}

const Family kGemma2{
    "Gemma2ForCausalLM", "gemma2", defaults, read, write, {.activation = "hidden_activation"}};

}  // namespace kamerton::model
