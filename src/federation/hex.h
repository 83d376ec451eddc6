// SPDX-License-Identifier: Apache-2.0
// Bytes as text, for the journal.
#pragma once

#include <string>
#include <string_view>

namespace kamerton::federation {

std::string to_hex_text(std::string_view bytes);
/// ErrorKind::Data for text that is not lower-case hexadecimal of whole bytes.
std::string from_hex(std::string_view text);

}  // namespace kamerton::federation
