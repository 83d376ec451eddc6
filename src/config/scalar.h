// SPDX-License-Identifier: Apache-2.0
// Scalars read strictly (YAML 1.2 core, narrowed): true and false, decimal integers without leading
// zeros, finite numbers.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "kamerton/config/field.h"

#include "yaml_tree.h"

namespace kamerton::config {

std::optional<bool> read_bool(const YamlNode& node);
std::optional<int64_t> read_int(const YamlNode& node);
/// Integers too.
std::optional<double> read_double(const YamlNode& node);
/// Quoted text, and plain text unless it is null, true or false: a knob that holds text takes
/// `2024` as text.
std::optional<std::string> read_string(const YamlNode& node);

/// "the text 'fast'", "the integer 3", "a list of 2", ... what a person would say stands there.
std::string describe_found(const YamlNode& node);

bool in_range(double value, const Doc& doc);
/// "a number > 0", "an integer from 1 to 64", "one of a, b": what a knob takes. `noun`: "a number",
/// ...
std::string describe_allowed(const std::string& noun, const Doc& doc);

/// The shortest text that reads back as the same number and looks like one with a fraction ("1.0",
/// "1e-05").
std::string format_double(double value);
/// The text as a YAML scalar, in double quotes unless it is safe without.
std::string quote_string(const std::string& text);

}  // namespace kamerton::config
