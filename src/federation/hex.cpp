// SPDX-License-Identifier: Apache-2.0
#include "hex.h"

#include "kamerton/core/error.h"

namespace kamerton::federation {
namespace {

constexpr std::string_view kHexDigits = "0123456789abcdef";

}  // namespace

std::string to_hex_text(std::string_view bytes) {
  std::string text;
  text.reserve(2 * bytes.size());
  for (const char byte : bytes) {
    const auto value = static_cast<uint8_t>(byte);
    text += kHexDigits[value >> 4];
    text += kHexDigits[value & 15];
  }
  return text;
}

std::string from_hex(std::string_view text) {
  std::string bytes;
  bytes.reserve(text.size() / 2);
  for (size_t i = 0; i + 1 < text.size(); i += 2) {
    const size_t high = kHexDigits.find(text[i]);
    const size_t low = kHexDigits.find(text[i + 1]);
    if (high == std::string_view::npos || low == std::string_view::npos) {
      break;
    }
    bytes += static_cast<char>(high * 16 + low);
  }
  if (2 * bytes.size() != text.size()) {
    throw core::Error(core::ErrorKind::Data,
                      {.where = "federation.hex", .what = "not hexadecimal text"});
  }
  return bytes;
}

}  // namespace kamerton::federation
