// SPDX-License-Identifier: Apache-2.0
// Numbers as people read them: for headers, progress lines and messages, never for files that a
// program reads.
#pragma once

#include <cstdint>
#include <string>

namespace kamerton::core {

/// "512 B", "1.5 KiB", "12.0 GiB": powers of 1024.
std::string format_bytes(uint64_t bytes);

/// "0.42 s", "12 s", "3m05s", "2h07m", "4d03h"; "?" when negative or not finite.
std::string format_duration(double seconds);

/// "950", "12.3k", "134.5M", "1.2G": powers of 1000; "?" when not finite.
std::string format_count(double count);

}  // namespace kamerton::core
