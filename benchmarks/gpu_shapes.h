// SPDX-License-Identifier: Apache-2.0
// The model shapes of gpu_bench: the widths of Qwen2.5 in the Llama architecture.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include <fmt/format.h>

namespace kamerton::bench {

inline constexpr int64_t kGpuLength = 2048;
inline constexpr int64_t kGpuVocabulary = 151936;

struct GpuShape {
  const char* name;
  int64_t hidden, wide, layers, heads, kv_heads;
  int64_t batch;  ///< rows a step unless asked otherwise
};

inline constexpr GpuShape kGpuShapes[] = {{"0.5B", 896, 4864, 24, 14, 2, 8},
                                          {"1.5B", 1536, 8960, 28, 12, 2, 4},
                                          {"3B", 2048, 11008, 36, 16, 2, 2}};

inline const GpuShape& gpu_shape(const std::string& name) {
  for (const GpuShape& shape : kGpuShapes) {
    if (name == shape.name) {
      return shape;
    }
  }
  throw std::invalid_argument("no such shape: " + name + " (0.5B, 1.5B, 3B)");
}

inline std::string config_of(const GpuShape& s) {
  return fmt::format(
      R"({{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": {}, )"
      R"("hidden_size": {}, "intermediate_size": {}, "num_hidden_layers": {}, )"
      R"("num_attention_heads": {}, "num_key_value_heads": {}, "max_position_embeddings": {}, )"
      R"("rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "tie_word_embeddings": true}})",
      kGpuVocabulary,
      s.hidden,
      s.wide,
      s.layers,
      s.heads,
      s.kv_heads,
      kGpuLength);
}

/// Parameters in matrix products: the blocks and the head (tied: its table counts once, as a head).
inline int64_t product_parameters(const GpuShape& s) {
  const int64_t head_dim = s.hidden / s.heads;
  const int64_t attention = 2 * s.hidden * s.hidden + 2 * s.hidden * s.kv_heads * head_dim;
  return s.layers * (attention + 3 * s.hidden * s.wide) + kGpuVocabulary * s.hidden;
}

/// FLOP a token of forward and backward: 6 N + 12 L d T, half of the second term when the causal
/// mask is taken into account.
inline double flops_per_token(const GpuShape& s, bool causal) {
  return 6.0 * static_cast<double>(product_parameters(s)) +
         (causal ? 6.0 : 12.0) * static_cast<double>(s.layers * s.hidden * kGpuLength);
}

}  // namespace kamerton::bench
