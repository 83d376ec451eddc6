// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>

#include "../layer_types.h"
#include "family.h"

namespace kamerton::model {
namespace {

void defaults(DecoderConfig& config) {
  config.vocab_size = 151936;
  config.hidden_size = 4096;
  config.intermediate_size = 22016;
  config.layers = 32;
  config.heads = 32;
  config.kv_heads = 32;
  config.head_dim = 128;
  config.max_positions = 32768;
}

void read(const ConfigReader& reader, DecoderConfig& config) {
  config.qkv_bias = config.output_bias = reader.flag("attention_bias", false);
  config.qk_norm = QkNorm::Head;
  read_qwen_windows(reader, config);
}

void write(const DecoderConfig& config, core::Json& out) {
  out["attention_bias"] = config.qkv_bias;
}

}  // namespace

const Family kQwen3{"Qwen3ForCausalLM", "qwen3", defaults, read, write};

}  // namespace kamerton::model
