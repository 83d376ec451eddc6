// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "kamerton/privacy/random_source.h"

namespace kamerton::privacy {

inline std::string hex(std::span<const uint8_t> bytes) {
  std::string text;
  for (const uint8_t byte : bytes) {
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  return text;
}

inline Secret secret_of(std::string_view hexadecimal) {
  const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
  Secret secret;
  for (size_t i = 0; i < Secret::kBytes; ++i) {
    secret.data()[i] =
        static_cast<uint8_t>(16 * digit(hexadecimal[2 * i]) + digit(hexadecimal[2 * i + 1]));
  }
  return secret;
}

/// A known stream: the tests are the same every time.
inline KeyedRandom test_random(uint64_t lane = 0) {
  return KeyedRandom(Secret(), lane);
}

}  // namespace kamerton::privacy
