// SPDX-License-Identifier: Apache-2.0
// The table of methods in words.
#pragma once

#include <string>

namespace kamerton::tuning {

/// Every method with its paper, its settings and their defaults, as plain text.
std::string methods_text();

}  // namespace kamerton::tuning
