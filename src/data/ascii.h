// SPDX-License-Identifier: Apache-2.0
// Kinds of single bytes, whatever the locale.
#pragma once

namespace kamerton::data {

inline bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
inline bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

}  // namespace kamerton::data
