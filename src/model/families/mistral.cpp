// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>

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
  const bool present = reader.object().contains("sliding_window");
  const int64_t window = reader.size({"sliding_window"}, present ? 0 : 4096, int64_t{1} << 40);
  config.windows.assign(static_cast<size_t>(config.layers), window);
}

}  // namespace

const Family kMistral{"MistralForCausalLM", "mistral", defaults, read};

}  // namespace kamerton::model
