// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <nlohmann/json.hpp>

#include "../layer_types.h"
#include "family.h"

namespace kamerton::model {
namespace {

void defaults(DecoderConfig& config) {
  config.vocab_size = 151936;
  config.hidden_size = 2048;
  config.intermediate_size = 6144;
  config.layers = 24;
  config.heads = 32;
  config.kv_heads = 4;
  config.max_positions = 32768;
}

/// A layer is dense when it is listed, or when its number (from 1) is no multiple of the step.
void read_sparse_layers(const ConfigReader& reader, DecoderConfig& config) {
  const int64_t step = reader.size({"decoder_sparse_step"}, 1, int64_t{1} << 40);
  const std::vector<int64_t> dense = reader.tokens("mlp_only_layers");
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const bool listed = std::find(dense.begin(), dense.end(), layer) != dense.end();
    config.experts.sparse.push_back(!listed && (layer + 1) % step == 0);
  }
}

void read(const ConfigReader& reader, DecoderConfig& config) {
  config.qkv_bias = config.output_bias = reader.flag("attention_bias", false);
  config.qk_norm = QkNorm::Head;
  // All layers slide or none: this family has no kinds of layers.
  if (reader.flag("use_sliding_window", false)) {
    read_common_window(reader, 4096, config);
  } else {
    read_layer_types(
        reader, 0, [](int64_t) { return false; }, config);
  }
  ExpertsConfig& experts = config.experts;
  experts.count = reader.size({"num_local_experts", "num_experts"}, 128, 65536);
  experts.intermediate_size = reader.size({"moe_intermediate_size"}, 768, int64_t{1} << 31);
  experts.normalised = reader.flag("norm_topk_prob", false);
  read_sparse_layers(reader, config);
  read_routing(reader, 8, config);
}

void write(const DecoderConfig& config, core::Json& out) {
  out["attention_bias"] = config.qkv_bias;
  // transformers 5's name and 4's.
  out["num_local_experts"] = config.experts.count;
  out["num_experts"] = config.experts.count;
}

}  // namespace

const Family kQwen3Moe{"Qwen3MoeForCausalLM", "qwen3_moe", defaults, read, write};

}  // namespace kamerton::model
