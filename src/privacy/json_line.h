// SPDX-License-Identifier: Apache-2.0
// Lines of JSON that hold the digest of the line before: any change is seen further on.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kamerton/core/json.h"

namespace kamerton::privacy {

/// The whole lines of `text` without their ends, and how many bytes they take; what follows the
/// last
/// '\n' is an unfinished line.
struct Lines {
  std::vector<std::string_view> whole;
  size_t bytes = 0;
};
Lines lines_of(std::string_view text);

/// Hexadecimal BLAKE2b-256 of a line.
std::string line_digest(std::string_view line);

std::string to_hexadecimal(const uint8_t* bytes, size_t size);
/// Throws ErrorKind::Data naming `what` unless it is exactly size * 2 lower-case digits.
void from_hexadecimal(std::string_view text, uint8_t* bytes, size_t size, const std::string& what);

/// Seconds since 1970 as "2026-11-22 14:03:09Z".
std::string time_text(int64_t seconds);
int64_t now_seconds();

}  // namespace kamerton::privacy
