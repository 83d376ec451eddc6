// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>

#include "family.h"

namespace kamerton::model {
namespace {

void defaults(DecoderConfig& config) {
  config.names.attention_norm = "";
  config.names.attention_out_norm = "post_attention_layernorm";
  config.names.feed_forward_norm = "";
  config.names.feed_forward_out_norm = "post_feedforward_layernorm";
  config.qk_norm = QkNorm::Whole;
  config.norm_eps = 1e-5;
  config.vocab_size = 50304;
  config.hidden_size = 4096;
  config.intermediate_size = 11008;
  config.layers = 32;
  config.heads = 32;
  config.max_positions = 2048;
  config.eos_ids = {50279};
  config.pad_id = 1;
}

void read(const ConfigReader& reader, DecoderConfig& config) {
  config.qkv_bias = config.output_bias = reader.flag("attention_bias", false);
}

void write(const DecoderConfig& config, core::Json& out) {
  out["attention_bias"] = config.qkv_bias;
}

}  // namespace

const Family kOlmo2{"Olmo2ForCausalLM", "olmo2", defaults, read, write};

}  // namespace kamerton::model
