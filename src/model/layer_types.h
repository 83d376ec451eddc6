// SPDX-License-Identifier: Apache-2.0
// Which layers attend through a sliding window.
#pragma once

#include <functional>

#include "kamerton/core/json.h"
#include "kamerton/model/architecture.h"

#include "config_reader.h"

namespace kamerton::model {

/// Fills config.sliding and config.windows (`window` in sliding layers) from "layer_types", or by
/// `slides(layer)` when the file has none. Throws ErrorKind::Data: not one entry a layer, an
/// unknown kind.
void read_layer_types(const ConfigReader& reader,
                      int64_t window,
                      const std::function<bool(int64_t)>& slides,
                      DecoderConfig& config);
/// The list of kinds, as transformers writes it.
core::Json layer_types_json(const DecoderConfig& config);

/// The windows of Qwen2 and Qwen3: layer_types, or max_window_layers, and only with
/// use_sliding_window.
void read_qwen_windows(const ConfigReader& reader, DecoderConfig& config);
/// One window for all layers: "sliding_window", null: none; `fallback` when the key is missing.
void read_common_window(const ConfigReader& reader, int64_t fallback, DecoderConfig& config);

}  // namespace kamerton::model
