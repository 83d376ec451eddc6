// SPDX-License-Identifier: Apache-2.0
// Data as a picture and as a page: files that need nothing but a browser.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "kamerton/data/inspect.h"

namespace kamerton::data {

/// An SVG: examples by length before cutting with a line at sequence_length, tokens of each source
/// (trained and others), how full packed rows are.
std::string stats_svg(const Stats& stats);

/// An HTML page of examples `indices`, trained tokens coloured; a token's number and id show when
/// it is pointed at.
std::string show_html(const Dataset& set, std::span<const int64_t> indices);

}  // namespace kamerton::data
