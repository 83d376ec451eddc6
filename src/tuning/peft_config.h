// SPDX-License-Identifier: Apache-2.0
// adapter_config.json to an AdapterSpec and back.
#pragma once

#include <string>
#include <string_view>

#include "method.h"

namespace kamerton::tuning {

/// Before every name in a file of PEFT's.
inline constexpr std::string_view kPeftPrefix = "base_model.model.";

/// Whether biases can be trained beside the method's adapter: its adapter_config.json says so.
bool has_bias(const Method& method);
/// Whether the method changes modules that are named (and can save others whole).
bool has_targets(const Method& method);
/// ErrorKind `kind` when a pattern holds something else than numbers above 0 (or what a pruned file
/// has kept).
void check_patterns(const core::Json& settings, core::ErrorKind kind, const std::string& origin);
/// PEFT's configuration, or AdapterHub's. ErrorKind::Data naming `origin`.
AdapterSpec read_config(const core::Json& config, const std::string& origin);
/// transposed: a target's weight is [in, out]. doubled: the file holds twice the rank.
core::Json config_json(const AdapterSpec& spec,
                       const std::string& base_model,
                       bool transposed,
                       bool doubled);
bool is_hub_config(const core::Json& config);
/// An AdapterHub tensor's name as PEFT would write it.
std::string name_of_hub(const std::string& name);

}  // namespace kamerton::tuning
