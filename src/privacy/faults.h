// SPDX-License-Identifier: Apache-2.0
// The ways in which this module refuses.
#pragma once

#include <string>

#include "kamerton/core/error.h"

namespace kamerton::privacy {

/// Somebody asks for what must not happen: an attack, a key that is not theirs, a spent budget.
[[noreturn]] void refuse(const std::string& where,
                         const std::string& what,
                         const std::string& got = {},
                         const std::string& allowed = {},
                         const std::string& hint = {});
/// Bytes from outside that are not what they should be.
[[noreturn]] void bad_data(const std::string& where,
                           const std::string& what,
                           const std::string& got = {},
                           const std::string& allowed = {});
/// A choice that cannot be.
[[noreturn]] void bad_choice(const std::string& where,
                             const std::string& what,
                             const std::string& got = {},
                             const std::string& allowed = {},
                             const std::string& hint = {});
/// libsodium's or OpenSSL's answer to a call that cannot fail with sound arguments.
void library_check(bool good, const char* call);
/// Before the first use of libsodium.
void start_sodium();

}  // namespace kamerton::privacy
