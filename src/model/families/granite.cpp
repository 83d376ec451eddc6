// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>

#include "family.h"

namespace kamerton::model {
namespace {

void defaults(DecoderConfig& config) {
  config.vocab_size = 32000;
  config.hidden_size = 4096;
  config.intermediate_size = 11008;
  config.layers = 32;
  config.heads = 32;
  config.max_positions = 2048;
  config.bos_id = 1;
  config.eos_ids = {2};
}

void read(const ConfigReader& reader, DecoderConfig& config) {
  config.qkv_bias = config.output_bias = reader.flag("attention_bias", false);
  config.mlp_bias = reader.flag("mlp_bias", false);
  config.embedding_scale = reader.positive({"embedding_multiplier"}, 1.0);
  config.residual_scale = reader.positive({"residual_multiplier"}, 1.0);
  config.attention_scale = reader.positive({"attention_multiplier"}, 1.0);
  config.logit_scale = 1.0 / reader.positive({"logits_scaling"}, 1.0);
}

void write(const DecoderConfig& config, core::Json& out) {
  out["attention_bias"] = config.qkv_bias;
  out["mlp_bias"] = config.mlp_bias;
  out["embedding_multiplier"] = config.embedding_scale;
  out["residual_multiplier"] = config.residual_scale;
  out["attention_multiplier"] = config.attention_scale;
  if (!out.contains("logits_scaling")) {
    out["logits_scaling"] = 1.0 / config.logit_scale;
  }
}

}  // namespace

const Family kGranite{"GraniteForCausalLM", "granite", defaults, read, write};

}  // namespace kamerton::model
