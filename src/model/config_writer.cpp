// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>

#include "kamerton/core/json.h"
#include "kamerton/model/architecture.h"

namespace kamerton::model {
namespace {

using core::Json;

const char* dtype_name(c10::ScalarType dtype) {
  return dtype == at::kBFloat16 ? "bfloat16" : dtype == at::kHalf ? "float16" : "float32";
}

/// The scaling part, in names that both generations share.
Json rope_scaling(const DecoderConfig& config) {
  const RopeConfig& rope = config.rope;
  Json object = Json::object();
  object["rope_type"] = rope.type;
  if (rope.type == "default") {
    return object;
  }
  object["factor"] = rope.factor;
  if (rope.type == "llama3") {
    object["low_freq_factor"] = rope.low_freq_factor;
    object["high_freq_factor"] = rope.high_freq_factor;
  }
  if (rope.type == "llama3" || rope.type == "yarn") {
    object["original_max_position_embeddings"] = rope.original_max_positions;
  }
  if (rope.type == "yarn") {
    object["beta_fast"] = rope.beta_fast;
    object["beta_slow"] = rope.beta_slow;
    if (rope.mscale != 0 && rope.mscale_all_dim != 0) {
      object["mscale"] = rope.mscale;
      object["mscale_all_dim"] = rope.mscale_all_dim;
    }
    if (rope.attention_factor) {
      object["attention_factor"] = *rope.attention_factor;
    }
    object["truncate"] = rope.truncate;
  }
  return object;
}

void write_rope(const DecoderConfig& config, Json& out) {
  const Json scaling = rope_scaling(config);
  Json current = scaling;
  current["rope_theta"] = config.rope.theta;
  if (config.rope.partial_factor != 1.0) {
    current["partial_rotary_factor"] = config.rope.partial_factor;
    out["partial_rotary_factor"] = config.rope.partial_factor;
  }
  out["rope_parameters"] = current;
  // What 4.x reads instead.
  out["rope_theta"] = config.rope.theta;
  out["rope_scaling"] = config.rope.type == "default" ? Json(nullptr) : scaling;
}

void write_ids(const DecoderConfig& config, Json& out) {
  out["bos_token_id"] = config.bos_id ? Json(*config.bos_id) : Json(nullptr);
  if (config.eos_ids.empty()) {
    out["eos_token_id"] = nullptr;
  } else if (config.eos_ids.size() == 1) {
    out["eos_token_id"] = config.eos_ids.front();
  } else {
    out["eos_token_id"] = config.eos_ids;
  }
  out["pad_token_id"] = config.pad_id ? Json(*config.pad_id) : Json(nullptr);
}

void write_switches(const DecoderConfig& config, Json& out) {
  if (config.model_type == "llama" || config.model_type == "qwen3") {
    out["attention_bias"] = config.qkv_bias;
  }
  if (config.model_type == "llama") {
    out["mlp_bias"] = config.mlp_bias;
  }
  if (config.model_type == "mistral" && !config.windows.empty()) {
    out["sliding_window"] = config.windows[0] > 0 ? Json(config.windows[0]) : Json(nullptr);
  }
}

}  // namespace

std::string config_to_json(const DecoderConfig& config, c10::ScalarType dtype) {
  Json out = config.source_json.empty() ? Json::object()
                                        : core::parse_json(config.source_json, "config.json");
  out["architectures"] = Json::array({config.architecture});
  out["model_type"] = config.model_type;
  out["vocab_size"] = config.vocab_size;
  out["hidden_size"] = config.hidden_size;
  out["intermediate_size"] = config.intermediate_size;
  out["num_hidden_layers"] = config.layers;
  out["num_attention_heads"] = config.heads;
  out["num_key_value_heads"] = config.kv_heads;
  out["head_dim"] = config.head_dim;
  out["hidden_act"] = "silu";
  out["max_position_embeddings"] = config.max_positions;
  out["rms_norm_eps"] = config.norm_eps;
  out["initializer_range"] = config.initializer_range;
  out["tie_word_embeddings"] = config.tied_head;
  write_switches(config, out);
  write_rope(config, out);
  write_ids(config, out);
  out["dtype"] = dtype_name(dtype);
  out["torch_dtype"] = dtype_name(dtype);
  return out.dump(2) + "\n";
}

}  // namespace kamerton::model
