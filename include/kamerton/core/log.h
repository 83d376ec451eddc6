// SPDX-License-Identifier: Apache-2.0
// Leveled lines on stderr, stamped with the rank; rank 0 speaks, the others only warn.
#pragma once

#include <string_view>

namespace kamerton::core {

enum class LogLevel { Debug, Info, Warning, Error };

/// Set once by the program (before: rank 0 of 1, Info). stdout is never used: it belongs to the
/// command's result.
void configure_log(int rank, int world_size, LogLevel level);

/// Rank 0 only.
void log_info(std::string_view line);
void log_debug(std::string_view line);
/// Any rank; the line carries the rank when there is more than one.
void log_warning(std::string_view line);
void log_error(std::string_view line);

}  // namespace kamerton::core
