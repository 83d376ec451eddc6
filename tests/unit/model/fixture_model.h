// SPDX-License-Identifier: Apache-2.0
// A reference model with the reference library's numbers for it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "kamerton/model/decoder.h"
#include "kamerton/storage/safetensors.h"

#include "support/oracle.h"

namespace kamerton::test {

inline const std::vector<std::string>& fixture_models() {
  static const std::vector<std::string> names = {"stories260K",
                                                 "tiny-llama",
                                                 "tiny-mistral",
                                                 "tiny-mixtral",
                                                 "tiny-qwen2",
                                                 "tiny-qwen3",
                                                 "tiny-qwen3_moe",
                                                 "tiny-gemma2",
                                                 "tiny-gemma3",
                                                 "tiny-phi3",
                                                 "tiny-phi3-longrope",
                                                 "tiny-gpt2",
                                                 "tiny-gpt_neox"};
  return names;
}

inline std::unique_ptr<model::Decoder> load_fixture(const std::string& name,
                                                    model::ModelOptions options = {}) {
  options.path = oracle_path("models/" + name).string();
  options.dtype = "fp32";
  auto decoder = std::make_unique<model::Decoder>(model::read_config(options.path), options);
  decoder->load_whole();
  return decoder;
}

/// The real tokens of a padded batch as flat rows.
struct FlatBatch {
  model::Rows rows;
  at::Tensor kept;       // int64 [N]: index of each row in the flattened batch
  at::Tensor targets_N;  // shifted labels
};

inline FlatBatch flatten(const at::Tensor& ids_BT,
                         const at::Tensor& mask_BT,
                         const at::Tensor& labels_BT) {
  std::vector<std::vector<int64_t>> documents;
  std::vector<int64_t> kept;
  std::vector<int64_t> targets;
  const int64_t length = ids_BT.size(1);
  for (int64_t b = 0; b < ids_BT.size(0); ++b) {
    auto& document = documents.emplace_back();
    for (int64_t t = 0; t < length; ++t) {
      if (mask_BT[b][t].item<int64_t>() == 0) {
        continue;
      }
      document.push_back(ids_BT[b][t].item<int64_t>());
      kept.push_back(b * length + t);
      const bool last = t + 1 == length || mask_BT[b][t + 1].item<int64_t>() == 0;
      targets.push_back(last || !labels_BT.defined() ? tensor::kIgnoredTarget
                                                     : labels_BT[b][t + 1].item<int64_t>());
    }
  }
  return {model::Rows::from_documents(documents),
          at::tensor(kept, at::kLong),
          at::tensor(targets, at::kLong)};
}

}  // namespace kamerton::test
