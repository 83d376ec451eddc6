// SPDX-License-Identifier: Apache-2.0
// The `model:` section of a configuration.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace kamerton::config {
class Fields;
}

namespace kamerton::model {

struct ModelOptions {
  std::string path;                               ///< a Hugging Face directory
  std::string device = "auto";                    ///< auto | cpu | cuda
  std::string dtype = "auto";                     ///< auto | fp32 | bf16: what is computed in
  std::string activation_checkpointing = "none";  ///< none | block
  bool random_init = false;                       ///< no weights are read: seeded random ones
  int64_t init_seed = 0;
  bool allow_pickle = false;  ///< pytorch_model.bin is read where there are no safetensors
  bool score_head = false;  ///< one score a token instead of logits (no key: set by the objective)
  std::optional<int64_t> score_pad =
      {};                    ///< the padding token of a score head that config.json lacks
  bool value_head = false;   ///< a value a token beside the logits (no key: set by the objective)
  std::string weights = {};  ///< a file or folder of weights; "": path (no key: set by import)
  /// Absent: config.json's, where that asks for it by output_router_logits; else none.
  std::optional<double> router_aux_loss_coef = {};
  int64_t head_chunk_rows = 0;  ///< 0: chosen from the vocabulary
};

void describe(config::Fields& fields, ModelOptions& options);

}  // namespace kamerton::model
