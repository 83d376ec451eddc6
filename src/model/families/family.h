// SPDX-License-Identifier: Apache-2.0
// A family of models: a name and how its config.json differs from the common keys.
#pragma once

#include <string_view>
#include <vector>

#include "kamerton/model/architecture.h"

#include "../config_reader.h"

namespace kamerton::model {

struct Family {
  std::string_view architecture;  ///< as in config.json's "architectures"
  std::string_view model_type;
  /// Defaults of transformers for keys that the file leaves out; runs before the common keys are
  /// read.
  void (*defaults)(DecoderConfig& config);
  /// What only this family has; runs after the common keys.
  void (*read)(const ConfigReader& reader, DecoderConfig& config);
};

extern const Family kLlama;
extern const Family kMistral;
extern const Family kQwen2;
extern const Family kQwen3;

/// All of them.
const std::vector<const Family*>& families();

/// The windows of Qwen2 and Qwen3: layer_types, or max_window_layers, and only with
/// use_sliding_window.
void read_qwen_windows(const ConfigReader& reader, DecoderConfig& config);

}  // namespace kamerton::model
