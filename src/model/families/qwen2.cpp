// SPDX-License-Identifier: Apache-2.0
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
  config.max_positions = 32768;
}

void read(const ConfigReader& reader, DecoderConfig& config) {
  config.qkv_bias = true;
  read_qwen_windows(reader, config);
}

}  // namespace

const Family kQwen2{"Qwen2ForCausalLM", "qwen2", defaults, read};

}  // namespace kamerton::model
