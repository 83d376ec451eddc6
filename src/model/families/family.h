// SPDX-License-Identifier: Apache-2.0
// A family of models: a name, the choices it makes in DecoderConfig, and how its config.json
// differs from the common keys.
#pragma once

#include <string_view>
#include <vector>

#include "kamerton/core/json.h"
#include "kamerton/model/architecture.h"

#include "../config_reader.h"

namespace kamerton::model {

/// How a family spells what all have. "": it has no such key.
struct ConfigKeys {
  std::string_view hidden = "hidden_size";
  std::string_view intermediate = "intermediate_size";
  std::string_view layers = "num_hidden_layers";
  std::string_view heads = "num_attention_heads";
  std::string_view kv_heads = "num_key_value_heads";
  std::string_view head_dim = "head_dim";
  std::string_view positions = "max_position_embeddings";
  std::string_view norm_eps = "rms_norm_eps";
  std::string_view activation = "hidden_act";
};

struct Family {
  std::string_view architecture;  ///< as in config.json's "architectures"
  std::string_view model_type;
  /// Names, choices, and the defaults of transformers for keys that the file leaves out; runs
  /// before the common keys are read.
  void (*defaults)(DecoderConfig& config);
  /// What only this family has; runs after the common keys.
  void (*read)(const ConfigReader& reader, DecoderConfig& config);
  /// The inverse of read, so that transformers 4 and 5 read the same; null: nothing. Runs after the
  /// common keys are written.
  void (*write)(const DecoderConfig& config, core::Json& out) = nullptr;
  ConfigKeys keys = {};
};

extern const Family kGemma2;
extern const Family kGemma3;
extern const Family kGpt2;
extern const Family kGptNeox;
extern const Family kGranite;
extern const Family kLlama;
extern const Family kMistral;
extern const Family kMixtral;
extern const Family kOlmo2;
extern const Family kPhi3;
extern const Family kQwen2;
extern const Family kQwen3;
extern const Family kQwen3Moe;

/// All of them.
const std::vector<const Family*>& families();
/// The family of a configuration; ErrorKind::Internal for an architecture that is none of them.
const Family& family_of(const DecoderConfig& config);

/// What Gemma 2 and 3 share; the caps are the defaults of a file that does not name them (0: none).
void read_gemma(const ConfigReader& reader,
                double attention_cap,
                double logit_cap,
                DecoderConfig& config);
void write_gemma(const DecoderConfig& config, core::Json& out);

/// What all families with experts read after `experts.count`: choices a token (or this many), the
/// load-balancing loss.
void read_routing(const ConfigReader& reader, int64_t choices, DecoderConfig& config);

}  // namespace kamerton::model
