// SPDX-License-Identifier: Apache-2.0
// The memory of this process, as the kernel counts it (Linux).
#pragma once

#include <cstdint>

namespace kamerton::telemetry {

/// The largest resident set so far, bytes (VmHWM of /proc/self/status; getrusage where /proc is
/// missing). The kernel counts in batches per thread, so it may lag by some hundred KiB.
int64_t peak_rss_bytes();

/// The resident set now, bytes; 0 where /proc is missing.
int64_t current_rss_bytes();

/// Memory that can still be had on this machine, bytes (MemAvailable, or less where a control group
/// limits it); 0 when unknown.
int64_t available_memory_bytes();

}  // namespace kamerton::telemetry
