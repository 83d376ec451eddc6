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

#include "kamerton/model/experts.h"
#include "kamerton/tensor/activation.h"

namespace kamerton::model {

/// Rotary position embedding; names as in transformers' modeling_rope_utils.
struct RopeConfig {
  std::string type = "default";  ///< default | linear | dynamic | llama3 | yarn | longrope
  double theta = 10000.0;
  double partial_factor = 1.0;  ///< share of head_dim that is rotated
  double factor = 1.0;
  double low_freq_factor = 1.0;        ///< llama3
  double high_freq_factor = 4.0;       ///< llama3
  int64_t original_max_positions = 0;  ///< llama3, yarn, longrope; 0: max_positions
  double beta_fast = 32.0;             ///< yarn
  double beta_slow = 1.0;              ///< yarn
  double mscale = 0.0;                 ///< yarn, 0: absent
  double mscale_all_dim = 0.0;         ///< yarn, 0: absent
  bool truncate = true;                ///< yarn
  std::optional<double> attention_factor;
  std::vector<double> short_factors;  ///< longrope: divide the frequencies, one a rotated pair
  std::vector<double> long_factors;   ///< the same for documents above original_max_positions
};

enum class NormKind : uint8_t {
  Rms,         ///< x / rms(x) * w
  RmsPlusOne,  ///< x / rms(x) * (1 + w)
  Layer,       ///< (x - mean) / deviation * w + b
};
enum class QkNorm : uint8_t {
  None,
  Head,   ///< each head's q and k, weight [head_dim]
  Whole,  ///< all heads together, weight [heads * head_dim]
};
enum class QkvLayout : uint8_t {
  Separate,     ///< three modules
  Consecutive,  ///< one: all of q, then k, then v
  ByHead,       ///< one: q, k, v of the first head, of the second, ...
};

/// Names of the checkpoint's modules, "" where the family has none: what is not named is not there.
struct ModuleNames {
  std::string prefix = "model.";  ///< of the base model; files of a bare base model lack it
  std::string embedding = "model.embed_tokens";
  std::string positions;  ///< learned positions (GPT-2)
  std::string layers = "model.layers";
  std::string final_norm = "model.norm";
  std::string head = "lm_head";
  // Within a layer:
  std::string attention_norm = "input_layernorm";  ///< before attention
  std::string attention_out_norm;                  ///< of attention's result, before it is added
  std::string feed_forward_norm = "post_attention_layernorm";  ///< before the feed-forward part
  std::string feed_forward_out_norm;                           ///< of its result
  std::string q = "self_attn.q_proj", k = "self_attn.k_proj", v = "self_attn.v_proj";
  std::string qkv;  ///< QkvLayout other than Separate
  std::string q_norm = "self_attn.q_norm", k_norm = "self_attn.k_norm";
  std::string output = "self_attn.o_proj";
  std::string gate = "mlp.gate_proj";  ///< "": not gated
  std::string up = "mlp.up_proj", down = "mlp.down_proj";
  std::string gate_up;  ///< one module, gate first, instead of two
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
  ModuleNames names;
  NormKind norm = NormKind::Rms;
  double norm_eps = 1e-6;
  bool rotary = true;
  RopeConfig rope;
  std::optional<RopeConfig> local_rope;  ///< of sliding layers, where they differ (Gemma 3)
  bool tied_head = false;
  /// A sequence classifier with one label: the head is "score" [1, hidden], the score of a sequence
  /// that at its last token but padding.
  bool score_head = false;
  bool fresh_score = false;  ///< the checkpoint is a language model: the score begins at random
  bool head_from_embedding = false;  ///< tied in the files, apart here: starts as the embedding
  QkvLayout qkv = QkvLayout::Separate;
  bool qkv_bias = false;
  bool output_bias = false;       ///< of the attention's output projection
  QkNorm qk_norm = QkNorm::None;  ///< before the rotation
  double attention_scale = 0.0;   ///< of the scores; 0: 1 / sqrt(head_dim)
  bool scale_by_layer = false;    ///< scores of layer i (from 0) also divided by i + 1
  double attention_cap = 0.0;     ///< scores = cap * tanh(scores / cap); 0: none
  std::vector<bool> sliding;      ///< of each layer: a sliding one
  std::vector<int64_t> windows;   ///< attention window of each layer, 0: none; `layers` entries
  tensor::Activation activation = tensor::Activation::Silu;
  std::string activation_name = "silu";
  bool mlp_bias = false;
  bool transposed_linear = false;  ///< weights of linear modules are [in, out] (Conv1D)
  bool parallel_residual = false;  ///< attention and feed-forward part both read the layer's input
  double embedding_scale = 1.0;    ///< rounded to the computing type
  double residual_scale = 1.0;     ///< of what attention and feed-forward part add
  double logit_scale = 1.0;
  double logit_cap = 0.0;  ///< logits = cap * tanh(logits / cap); 0: none
  ExpertsConfig experts;
  std::optional<int64_t> bos_id;
  std::vector<int64_t> eos_ids;
  std::optional<int64_t> pad_id;
  double initializer_range = 0.02;
  c10::ScalarType stored_dtype =
      c10::ScalarType::Float;  ///< of the checkpoint, as config.json says
  std::string source_json;     ///< the file as read: keys that we do not use are written back

  int64_t parameter_count() const;  ///< tied weights once; declares the model to count
  /// Tokens that a text may have: max_positions, and of "dynamic" rotary scaling, which begins
  /// behind them, `factor` times as many.
  int64_t context() const;
  bool learned_positions() const { return !names.positions.empty(); }
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
/// The model with a score instead of its head (nothing changes when it has one). `pad`: the padding
/// token where the configuration names none; then the end token.
DecoderConfig as_scorer(DecoderConfig config, std::optional<int64_t> pad = {});
/// What transformers calls the sequence classifier of a causal language model's architecture.
std::string scorer_name(const std::string& architecture);
/// ErrorKind::Config when the model gives a score instead of tokens; `where` is asked for tokens.
void require_tokens(const DecoderConfig& config, const std::string& where);

}  // namespace kamerton::model
