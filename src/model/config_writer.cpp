// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>

#include "kamerton/core/json.h"
#include "kamerton/model/architecture.h"

#include "families/family.h"

namespace kamerton::model {
namespace {

using core::Json;

const char* dtype_name(c10::ScalarType dtype) {
  return dtype == at::kBFloat16 ? "bfloat16" : dtype == at::kHalf ? "float16" : "float32";
}

void write_longrope(const RopeConfig& rope, Json& object) {
  object["short_factor"] = rope.short_factors;
  object["long_factor"] = rope.long_factors;
  if (rope.factor != 1.0) {
    object["factor"] = rope.factor;
  }
  if (rope.attention_factor) {
    object["attention_factor"] = *rope.attention_factor;
  }
}

/// The scaling part, in names that both generations share.
Json rope_scaling(const RopeConfig& rope) {
  Json object = Json::object();
  object["rope_type"] = rope.type;
  if (rope.type == "default") {
    return object;
  }
  if (rope.type == "longrope") {
    write_longrope(rope, object);
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

/// What 4.x reads beside rope_theta; its Phi-3 takes exactly "type" and the two lists.
Json older_scaling(const RopeConfig& rope) {
  Json scaling = rope_scaling(rope);
  if (rope.type == "default") {
    return nullptr;
  }
  if (rope.type == "longrope") {
    scaling.erase("rope_type");
    scaling["type"] = rope.type;
  }
  return scaling;
}

/// What 5.x reads.
Json rope_parameters(const RopeConfig& rope) {
  Json parameters = rope_scaling(rope);
  parameters["rope_theta"] = rope.theta;
  if (rope.partial_factor != 1.0) {
    parameters["partial_rotary_factor"] = rope.partial_factor;
  }
  if (rope.type == "longrope") {
    parameters["original_max_position_embeddings"] = rope.original_max_positions;
  }
  return parameters;
}

void write_rope(const DecoderConfig& config, Json& out) {
  if (config.local_rope) {
    out["rope_parameters"] = {{"full_attention", rope_parameters(config.rope)},
                              {"sliding_attention", rope_parameters(*config.local_rope)}};
    out["rope_local_base_freq"] = config.local_rope->theta;
  } else {
    out["rope_parameters"] = rope_parameters(config.rope);
  }
  if (config.rope.partial_factor != 1.0) {
    out["partial_rotary_factor"] = config.rope.partial_factor;
  }
  out["rope_theta"] = config.rope.theta;
  out["rope_scaling"] = older_scaling(config.rope);
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

void write_shape(const DecoderConfig& config, const ConfigKeys& keys, Json& out) {
  const auto put = [&](std::string_view key, const Json& value) {
    if (!key.empty()) {
      out[std::string(key)] = value;
    }
  };
  out["vocab_size"] = config.vocab_size;
  put(keys.hidden, config.hidden_size);
  put(keys.intermediate, config.intermediate_size);
  put(keys.layers, config.layers);
  put(keys.heads, config.heads);
  put(keys.kv_heads, config.kv_heads);
  put(keys.head_dim, config.head_dim);
  put(keys.activation, config.activation_name);
  put(keys.positions, config.max_positions);
  put(keys.norm_eps, config.norm_eps);
  out["initializer_range"] = config.initializer_range;
  out["tie_word_embeddings"] = config.tied_head;
}

}  // namespace

std::string config_to_json(const DecoderConfig& config, c10::ScalarType dtype) {
  Json out = config.source_json.empty() ? Json::object()
                                        : core::parse_json(config.source_json, "config.json");
  out["architectures"] =
      Json::array({config.score_head ? scorer_name(config.architecture) : config.architecture});
  if (config.score_head) {
    out["id2label"] = {{"0", "LABEL_0"}};
    out["label2id"] = {{"LABEL_0", 0}};
  }
  out["model_type"] = config.model_type;
  const Family& family = family_of(config);
  write_shape(config, family.keys, out);
  if (config.rotary) {
    write_rope(config, out);
  }
  if (family.write != nullptr) {
    family.write(config, out);
  }
  write_ids(config, out);
  out["dtype"] = dtype_name(dtype);
  out["torch_dtype"] = dtype_name(dtype);
  return out.dump(2) + "\n";
}

}  // namespace kamerton::model
