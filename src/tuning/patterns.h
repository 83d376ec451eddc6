// SPDX-License-Identifier: Apache-2.0
// Which modules an adapter names.
#pragma once

#include <regex>
#include <string>

#include "kamerton/tuning/adapter.h"

namespace kamerton::tuning {

/// ErrorKind::Config when it is not an expression.
std::regex compile(const std::string& expression);
/// Whether one of the names or "re:" expressions ("all-linear" is neither) is the module's.
bool any_names(const std::vector<std::string>& names, const std::string& module);
/// Whether a target other than "all-linear" names the module.
bool names_module(const AdapterSpec& spec, const std::string& module);
bool in_chosen_layer(const AdapterSpec& spec, const std::string& module);
/// PEFT: the first pattern that matches the end of a module's name, at a dot.
double pattern_value(const core::Json& pattern, const std::string& module, double otherwise);

}  // namespace kamerton::tuning
