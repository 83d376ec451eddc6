// SPDX-License-Identifier: Apache-2.0
#include "family.h"

namespace kamerton::model {
namespace {

void defaults(DecoderConfig& config) {
  config.vocab_size = 151936;
  config.hidden_size = 4096;
  config.intermediate_size = 22016;
  config.layers = 32;
  config.heads = 32;
  config.kv_heads = 32;
  config.max_positions = 32768;
}

void read(const ConfigReader& reader, DecoderConfig& config) {
  config.qkv_bias = true;
  read_qwen_windows(reader, config);
}

}  // namespace

void read_qwen_windows(const ConfigReader& reader, DecoderConfig& config) {
  const bool uses = reader.flag("use_sliding_window", false);
  const int64_t window = uses ? reader.size({"sliding_window"}, 4096, int64_t{1} << 40) : 0;
  const std::vector<std::string> types = reader.texts("layer_types");
  const auto layers = static_cast<size_t>(config.layers);
  if (!types.empty() && types.size() != layers) {
    reader.refuse("layer_types",
                  "one entry a layer is needed",
                  std::to_string(types.size()),
                  std::to_string(layers));
  }
  const double first = reader.number({"max_window_layers"}, 28);
  config.windows.assign(layers, 0);
  for (size_t i = 0; i < layers; ++i) {
    if (!types.empty() && types[i] != "full_attention" && types[i] != "sliding_attention") {
      reader.refuse("layer_types",
                    "unknown kind of attention",
                    types[i],
                    "full_attention, sliding_attention");
    }
    const bool slides =
        types.empty() ? static_cast<double>(i) >= first : types[i] == "sliding_attention";
    config.windows[i] = slides ? window : 0;
  }
}

const Family kQwen2{"Qwen2ForCausalLM", "qwen2", defaults, read};

}  // namespace kamerton::model
