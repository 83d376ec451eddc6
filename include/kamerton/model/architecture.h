// SPDX-License-Identifier: Apache-2.0
// What a decoder is made of, read from config.json as transformers 4 and 5 write it, and written
// back.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <c10/core/ScalarType.h>

namespace kamerton::model {

/// Rotary position embedding; names as in transformers' modeling_rope_utils.
struct RopeConfig {
  std::string type = "default";  ///< default | linear | dynamic | llama3 | yarn
  double theta = 10000.0;
  double partial_factor = 1.0;  ///< share of head_dim that is rotated
  double factor = 1.0;
  double low_freq_factor = 1.0;        ///< llama3
  double high_freq_factor = 4.0;       ///< llama3
  int64_t original_max_positions = 0;  ///< llama3, yarn; 0: max_positions
  double beta_fast = 32.0;             ///< yarn
  double beta_slow = 1.0;              ///< yarn
  double mscale = 0.0;                 ///< yarn, 0: absent
  double mscale_all_dim = 0.0;         ///< yarn, 0: absent
  bool truncate = true;                ///< yarn
  std::optional<double> attention_factor;
};

/// One decoder-only transformer. A family (Llama, Qwen2, ...) is one filling of this table.
struct DecoderConfig {
  std::string architecture;  ///< "LlamaForCausalLM"
  std::string model_type;    ///< "llama"
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t max_positions = 0;
  double norm_eps = 1e-6;
  RopeConfig rope;
  bool tied_head = false;
  bool qkv_bias = false;
  bool output_bias = false;  ///< of the attention's output projection
  bool mlp_bias = false;
  bool qk_norm = false;          ///< RMS norm on each head's q and k before the rotation (Qwen3)
  std::vector<int64_t> windows;  ///< attention window of each layer, 0: none; `layers` entries
  std::optional<int64_t> bos_id;
  std::vector<int64_t> eos_ids;
  std::optional<int64_t> pad_id;
  double initializer_range = 0.02;
  c10::ScalarType stored_dtype =
      c10::ScalarType::Float;  ///< of the checkpoint, as config.json says
  std::string source_json;     ///< the file as read: keys that we do not use are written back

  int64_t parameter_count() const;  ///< tied weights once
  int64_t query_size() const { return heads * head_dim; }
  int64_t kv_size() const { return kv_heads * head_dim; }
};

/// Throws ErrorKind::Data: not a JSON object, a missing or absurd number, both spellings of a key
/// with different values, an architecture or an option that is not supported (with the list of what
/// is).
DecoderConfig parse_config(std::string_view json_text, const std::string& origin);
/// Reads <directory>/config.json, and <directory>/generation_config.json for further eos ids.
/// ErrorKind::Data / Io.
DecoderConfig read_config(const std::string& directory);
/// config.json in transformers 5's spelling with the older names beside it where 4.x needs them.
std::string config_to_json(const DecoderConfig& config, c10::ScalarType dtype);
std::vector<std::string> known_architectures();

}  // namespace kamerton::model
