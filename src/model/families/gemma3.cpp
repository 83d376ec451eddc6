// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>

#include "../layer_types.h"
#include "family.h"

namespace kamerton::model {
namespace {

void defaults(DecoderConfig& config) {
  kGemma2.defaults(config);
  config.qk_norm = QkNorm::Head;
  config.vocab_size = 262208;
  config.max_positions = 131072;
  config.rope.theta = 1e6;
  config.local_rope = RopeConfig{};
}

void read(const ConfigReader& reader, DecoderConfig& config) {
  read_gemma(reader, 0.0, 0.0, config);
  const int64_t window = reader.size_or_none("sliding_window", 4096, int64_t{1} << 40);
  const int64_t period =
      reader.size({"sliding_window_pattern", "_sliding_window_pattern"}, 6, 1 << 16);
  read_layer_types(
      reader, window, [&](int64_t layer) { return (layer + 1) % period != 0; }, config);
}

void write(const DecoderConfig& config, core::Json& out) {
  write_gemma(config, out);
}

}  // namespace

const Family kGemma3{
    "Gemma3ForCausalLM", "gemma3_text", defaults, read, write, {.activation = "hidden_activation"}};

}  // namespace kamerton::model
