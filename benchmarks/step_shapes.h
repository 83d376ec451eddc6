// SPDX-License-Identifier: Apache-2.0
// The model shapes that benchmarks use.
#pragma once

#include <string>

#include <fmt/format.h>

namespace kamerton::bench {

struct StepShape {
  const char* name;
  int hidden;
  int wide;
  int layers;
  int heads;
};

inline constexpr StepShape kStepShapes[] = {{"S", 288, 768, 6, 6}, {"M", 768, 2048, 12, 12}};

inline std::string config_of(const StepShape& shape) {
  return fmt::format(
      R"({{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 32000,
"hidden_size": {}, "intermediate_size": {}, "num_hidden_layers": {}, "num_attention_heads": {},
"num_key_value_heads": {}, "max_position_embeddings": 1024, "rms_norm_eps": 1e-6,
"tie_word_embeddings": true}})",
      shape.hidden,
      shape.wide,
      shape.layers,
      shape.heads,
      shape.heads);
}

}  // namespace kamerton::bench
