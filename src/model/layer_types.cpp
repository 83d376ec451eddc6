// SPDX-License-Identifier: Apache-2.0
#include "layer_types.h"

#include <nlohmann/json.hpp>

namespace kamerton::model {
namespace {

constexpr int64_t kWidest = int64_t{1} << 40;

}  // namespace

void read_layer_types(const ConfigReader& reader,
                      int64_t window,
                      const std::function<bool(int64_t)>& slides,
                      DecoderConfig& config) {
  const std::vector<std::string> types = reader.texts("layer_types");
  const auto layers = static_cast<size_t>(config.layers);
  if (!types.empty() && types.size() != layers) {
    reader.refuse("layer_types",
                  "one entry a layer is needed",
                  std::to_string(types.size()),
                  std::to_string(layers));
  }
  config.sliding.assign(layers, false);
  config.windows.assign(layers, 0);
  for (size_t i = 0; i < layers; ++i) {
    if (!types.empty() && types[i] != "full_attention" && types[i] != "sliding_attention") {
      reader.refuse("layer_types",
                    "unknown kind of attention",
                    types[i],
                    "full_attention, sliding_attention");
    }
    config.sliding[i] =
        types.empty() ? slides(static_cast<int64_t>(i)) : types[i] == "sliding_attention";
    config.windows[i] = config.sliding[i] ? window : 0;
  }
}

core::Json layer_types_json(const DecoderConfig& config) {
  core::Json types = core::Json::array();
  for (const bool slides : config.sliding) {
    types.push_back(slides ? "sliding_attention" : "full_attention");
  }
  return types;
}

void read_qwen_windows(const ConfigReader& reader, DecoderConfig& config) {
  const bool uses = reader.flag("use_sliding_window", false);
  const int64_t window = uses ? reader.size({"sliding_window"}, 4096, kWidest) : 0;
  const double first = reader.number({"max_window_layers"}, 28);
  read_layer_types(
      reader,
      window,
      [&](int64_t layer) { return uses && static_cast<double>(layer) >= first; },
      config);
}

void read_common_window(const ConfigReader& reader, int64_t fallback, DecoderConfig& config) {
  const bool present = reader.object().contains("sliding_window");
  const int64_t window = reader.size({"sliding_window"}, present ? 0 : fallback, kWidest);
  const auto layers = static_cast<size_t>(config.layers);
  config.windows.assign(layers, window);
  config.sliding.assign(layers, window > 0);
}

}  // namespace kamerton::model
