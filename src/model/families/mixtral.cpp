// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>

#include "../layer_types.h"
#include "family.h"

namespace kamerton::model {
namespace {

void defaults(DecoderConfig& config) {
  config.vocab_size = 32000;
  config.hidden_size = 4096;
  config.intermediate_size = 14336;
  config.layers = 32;
  config.heads = 32;
  config.kv_heads = 8;
  config.max_positions = 131072;
  config.bos_id = 1;
  config.eos_ids = {2};
  config.experts.router = "block_sparse_moe.gate";
  config.experts.experts = "block_sparse_moe.experts";
  config.experts.gate = "w1";
  config.experts.up = "w3";
  config.experts.down = "w2";
}

void read(const ConfigReader& reader, DecoderConfig& config) {
  read_common_window(reader, 0, config);
  ExpertsConfig& experts = config.experts;
  experts.count = reader.size({"num_local_experts", "num_experts"}, 8, 65536);
  experts.intermediate_size = config.intermediate_size;
  experts.sparse.assign(static_cast<size_t>(config.layers), true);
  read_routing(reader, 2, config);
}

void write(const DecoderConfig& config, core::Json& out) {
  out["sliding_window"] = config.windows[0] > 0 ? core::Json(config.windows[0]) : core::Json();
  out["num_local_experts"] = config.experts.count;
}

}  // namespace

void read_routing(const ConfigReader& reader, int64_t choices, DecoderConfig& config) {
  ExpertsConfig& experts = config.experts;
  experts.choices = reader.size({"num_experts_per_tok"}, choices, experts.count);
  experts.aux_coefficient = reader.number({"router_aux_loss_coef"}, 0.001);
  experts.output_router_logits = reader.flag("output_router_logits", false);
  if (const double noise = reader.number({"router_jitter_noise"}, 0.0); noise != 0.0) {
    reader.refuse("router_jitter_noise",
                  "noise on the router's input is not supported",
                  std::to_string(noise),
                  "0");
  }
}

const Family kMixtral{"MixtralForCausalLM", "mixtral", defaults, read, write};

}  // namespace kamerton::model
