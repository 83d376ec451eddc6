// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>

namespace kamerton::comm {

/// On SIGSEGV, SIGABRT, SIGBUS, SIGFPE and SIGILL: writes "signal N" and a backtrace to
/// folder/rank-K.crash, the number into `signal_field` (kValue characters of a mapped status file),
/// then goes on to the former handler. Async-signal-safe. May be called again with another folder;
/// `signal_field` must stay mapped.
void install_crash_handler(const std::filesystem::path& folder, int rank, char* signal_field);

}  // namespace kamerton::comm
