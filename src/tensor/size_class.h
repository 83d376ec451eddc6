// SPDX-License-Identifier: Apache-2.0
// Eight sizes between a power of two and the next: at most 12.5 % of a block is unused.
#pragma once

#include <bit>
#include <cstddef>

namespace kamerton::tensor {

inline constexpr size_t kSmallestBlock = 512;  ///< below, waste is not worth a class
inline constexpr int kSizeClasses = 8 * 40;    ///< up to 2^49 bytes

/// Bytes of class c: 512, 576, ..., 960, 1024, 1152, ...
constexpr size_t bytes_of_class(int c) {
  const size_t base = kSmallestBlock << (c / 8);
  return base + base / 8 * static_cast<size_t>(c % 8);
}

/// The smallest class that holds `bytes`.
constexpr int size_class_of(size_t bytes) {
  if (bytes <= kSmallestBlock) {
    return 0;
  }
  const int power = static_cast<int>(std::bit_width(bytes)) - 1;  // 2^power <= bytes
  const size_t step = size_t{1} << (power - 3);
  const int octave = power - static_cast<int>(std::bit_width(kSmallestBlock)) + 1;
  const size_t eighths = (bytes - (size_t{1} << power) + step - 1) / step;
  return octave * 8 + static_cast<int>(eighths);
}

}  // namespace kamerton::tensor
