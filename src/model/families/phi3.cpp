// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>

#include "../layer_types.h"
#include "family.h"

namespace kamerton::model {
namespace {

void defaults(DecoderConfig& config) {
  config.names.q = config.names.k = config.names.v = "";
  config.names.qkv = "self_attn.qkv_proj";
  config.names.gate = config.names.up = "";
  config.names.gate_up = "mlp.gate_up_proj";
  config.qkv = QkvLayout::Consecutive;
  config.norm_eps = 1e-5;
  config.vocab_size = 32064;
  config.hidden_size = 3072;
  config.intermediate_size = 8192;
  config.layers = 32;
  config.heads = 32;
  config.max_positions = 4096;
  config.rope.original_max_positions = 4096;
  config.bos_id = 1;
  config.eos_ids = {32000};
  config.pad_id = 32000;
}

void read(const ConfigReader& reader, DecoderConfig& config) {
  read_common_window(reader, 0, config);
}

void write(const DecoderConfig& config, core::Json& out) {
  out["sliding_window"] = config.windows[0] > 0 ? core::Json(config.windows[0]) : core::Json();
  out["original_max_position_embeddings"] = config.rope.original_max_positions;
}

}  // namespace

const Family kPhi3{"Phi3ForCausalLM", "phi3", defaults, read, write};

}  // namespace kamerton::model
