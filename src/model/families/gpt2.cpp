// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>

#include "family.h"

namespace kamerton::model {
namespace {

void name_modules(ModuleNames& names) {
  names.prefix = "transformer.";
  names.embedding = "transformer.wte";
  names.positions = "transformer.wpe";
  names.layers = "transformer.h";
  names.final_norm = "transformer.ln_f";
  names.attention_norm = "ln_1";
  names.feed_forward_norm = "ln_2";
  names.qkv = "attn.c_attn";
  names.output = "attn.c_proj";
  names.up = "mlp.c_fc";
  names.down = "mlp.c_proj";
  names.q = names.k = names.v = names.gate = "";
}

void defaults(DecoderConfig& config) {
  name_modules(config.names);
  config.norm = NormKind::Layer;
  config.norm_eps = 1e-5;
  config.rotary = false;
  config.qkv = QkvLayout::Consecutive;
  config.transposed_linear = true;
  config.qkv_bias = config.output_bias = config.mlp_bias = true;
  config.activation_name = "gelu_new";
  config.vocab_size = 50257;
  config.hidden_size = 768;
  config.layers = 12;
  config.heads = 12;
  config.max_positions = 1024;
  config.tied_head = true;
  config.bos_id = 50256;
  config.eos_ids = {50256};
}

void read(const ConfigReader& reader, DecoderConfig& config) {
  if (reader.flag("add_cross_attention", false)) {
    reader.refuse("add_cross_attention", "only decoders are supported", "true", "false");
  }
  // Where n_inner is missing or null.
  if (config.intermediate_size == 0) {
    config.intermediate_size = 4 * config.hidden_size;
  }
  if (!reader.flag("scale_attn_weights", true)) {
    config.attention_scale = 1.0;
  }
  config.scale_by_layer = reader.flag("scale_attn_by_inverse_layer_idx", false);
}

void write(const DecoderConfig& config, core::Json& out) {
  out["scale_attn_weights"] = config.attention_scale == 0.0;
  out["scale_attn_by_inverse_layer_idx"] = config.scale_by_layer;
}

}  // namespace

const Family kGpt2{"GPT2LMHeadModel",
                   "gpt2",
                   defaults,
                   read,
                   write,
                   {.hidden = "n_embd",
                    .intermediate = "n_inner",
                    .layers = "n_layer",
                    .heads = "n_head",
                    .kv_heads = "",
                    .head_dim = "",
                    .positions = "n_positions",
                    .norm_eps = "layer_norm_epsilon",
                    .activation = "activation_function"}};

}  // namespace kamerton::model
