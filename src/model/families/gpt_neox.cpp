// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>

#include "family.h"

namespace kamerton::model {
namespace {

void name_modules(ModuleNames& names) {
  names.prefix = "gpt_neox.";
  names.embedding = "gpt_neox.embed_in";
  names.layers = "gpt_neox.layers";
  names.final_norm = "gpt_neox.final_layer_norm";
  names.head = "embed_out";
  names.qkv = "attention.query_key_value";
  names.output = "attention.dense";
  names.up = "mlp.dense_h_to_4h";
  names.down = "mlp.dense_4h_to_h";
  names.q = names.k = names.v = names.gate = "";
}

void defaults(DecoderConfig& config) {
  name_modules(config.names);
  config.norm = NormKind::Layer;
  config.norm_eps = 1e-5;
  config.qkv = QkvLayout::ByHead;
  config.mlp_bias = true;
  config.activation_name = "gelu";
  config.rope.partial_factor = 0.25;
  config.vocab_size = 50432;
  config.hidden_size = 6144;
  config.intermediate_size = 24576;
  config.layers = 44;
  config.heads = 64;
  config.max_positions = 2048;
  config.bos_id = 0;
  config.eos_ids = {2};
}

void read(const ConfigReader& reader, DecoderConfig& config) {
  config.qkv_bias = config.output_bias = reader.flag("attention_bias", true);
  config.parallel_residual = reader.flag("use_parallel_residual", true);
}

void write(const DecoderConfig& config, core::Json& out) {
  out["attention_bias"] = config.qkv_bias;
  out["use_parallel_residual"] = config.parallel_residual;
  // What 4.x reads instead of rope_theta and partial_rotary_factor.
  out["rotary_emb_base"] = config.rope.theta;
  out["rotary_pct"] = config.rope.partial_factor;
}

}  // namespace

const Family kGptNeox{"GPTNeoXForCausalLM",
                      "gpt_neox",
                      defaults,
                      read,
                      write,
                      {.kv_heads = "", .head_dim = "", .norm_eps = "layer_norm_eps"}};

}  // namespace kamerton::model
