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
}

void read(const ConfigReader& reader, DecoderConfig& config) {
  // null says "no window"; a missing key means the default of 4096.
  read_common_window(reader, 4096, config);
}

void write(const DecoderConfig& config, core::Json& out) {
  out["sliding_window"] = config.windows[0] > 0 ? core::Json(config.windows[0]) : core::Json();
}

}  // namespace

const Family kMistral{"MistralForCausalLM", "mistral", defaults, read, write};

}  // namespace kamerton::model
