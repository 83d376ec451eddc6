// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>
#include <unordered_map>

#include "jinja_interpreter.h"

namespace kamerton::text::jinja {

using FilterTable = std::unordered_map<std::string_view, FilterFunction>;
void add_value_filters(FilterTable& table);
void add_sequence_filters(FilterTable& table);

}  // namespace kamerton::text::jinja
