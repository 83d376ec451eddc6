// SPDX-License-Identifier: Apache-2.0
// A small Llama with random weights, and documents for it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kamerton/model/decoder.h"

namespace kamerton::test {

inline const char* kSmallConfig = R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama",
  "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
  "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
  "rms_norm_eps": 1e-5, "initializer_range": 0.2, "eos_token_id": [2, 5],
  "tie_word_embeddings": true})";

inline std::unique_ptr<model::Decoder> small_model(model::ModelOptions options = {},
                                                   const std::string& config = kSmallConfig) {
  options.random_init = true;
  if (options.dtype == "auto") {
    options.dtype = "fp32";
  }
  auto decoder = std::make_unique<model::Decoder>(model::parse_config(config, "small"), options);
  decoder->load_whole();
  return decoder;
}

/// Documents of the given lengths with arbitrary tokens.
inline std::vector<std::vector<int64_t>> documents_of(const std::vector<int64_t>& lengths) {
  std::vector<std::vector<int64_t>> documents;
  int64_t token = 7;
  for (const int64_t length : lengths) {
    auto& document = documents.emplace_back();
    for (int64_t i = 0; i < length; ++i) {
      token = (token * 31 + 11) % 97;
      document.push_back(token);
    }
  }
  return documents;
}

/// Every row's next token; none for the last row of a document.
inline at::Tensor next_tokens(const std::vector<std::vector<int64_t>>& documents) {
  std::vector<int64_t> targets;
  for (const auto& document : documents) {
    targets.insert(targets.end(), document.begin() + 1, document.end());
    targets.push_back(tensor::kIgnoredTarget);
  }
  return at::tensor(targets, at::kLong);
}

}  // namespace kamerton::test
