// SPDX-License-Identifier: Apache-2.0
// Safetensors files as strings, right and wrong ones.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "kamerton/storage/safetensors.h"

namespace kamerton::storage {

/// Length, header, data.
inline std::string safetensors_bytes(std::string_view header,
                                     size_t data_size,
                                     int64_t length_error = 0) {
  std::string bytes;
  const auto length = static_cast<uint64_t>(static_cast<int64_t>(header.size()) + length_error);
  for (int i = 0; i < 8; ++i) {
    bytes += static_cast<char>((length >> (8 * i)) & 0xff);
  }
  bytes += header;
  for (size_t i = 0; i < data_size; ++i) {
    bytes += static_cast<char>(i * 7 + 1);
  }
  return bytes;
}

inline SafetensorsHeader parse_text(const std::string& bytes) {
  return parse_safetensors(
      std::as_bytes(std::span(bytes.data(), bytes.size())), bytes.size(), "test.safetensors");
}

}  // namespace kamerton::storage
