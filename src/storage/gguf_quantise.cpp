// SPDX-License-Identifier: Apache-2.0
// Floats to blocks. The order of operations is the reference's
// (github.com/ggml-org/ggml/blob/master/src/ggml-quants.c), so the bytes are its bytes.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "kamerton/core/error.h"
#include "kamerton/storage/gguf_writer.h"

namespace kamerton::storage {
namespace {

constexpr size_t kQ8Elements = 32;

/// Round to nearest even; the additions of powers of two let the hardware do the rounding.
uint16_t half_of(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = bits & 0x80000000U;
  const uint32_t doubled = bits << 1;
  if (doubled > 0xff000000U) {
    return static_cast<uint16_t>((sign >> 16) | 0x7e00U);
  }
  const float to_infinity = std::bit_cast<float>(0x77800000U);  // 2^112
  const float to_zero = std::bit_cast<float>(0x08800000U);      // 2^-110
  float base = (std::fabs(value) * to_infinity) * to_zero;
  const uint32_t bias = std::max(doubled & 0xff000000U, 0x71000000U);
  base = std::bit_cast<float>((bias >> 1) + 0x07800000U) + base;
  const auto rounded = std::bit_cast<uint32_t>(base);
  return static_cast<uint16_t>((sign >> 16) | (((rounded >> 13) & 0x7c00U) + (rounded & 0xfffU)));
}

uint16_t bfloat_of(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) {
    return static_cast<uint16_t>((bits >> 16) | 64U);
  }
  return static_cast<uint16_t>((bits + (0x7fffU + ((bits >> 16) & 1U))) >> 16);
}

void put(std::byte* at, uint16_t value) {
  std::memcpy(at, &value, sizeof(value));
}

bool is_infinite(uint16_t half) {
  return (half & 0x7fffU) == 0x7c00U;
}

bool to_halves(std::span<const float> values, std::byte* out) {
  bool fits = true;
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t half = half_of(values[i]);
    fits = fits && (!is_infinite(half) || std::isinf(values[i]));
    put(out + 2 * i, half);
  }
  return fits;
}

/// 32 values as bytes times one scale: the scale in half precision, then the bytes.
bool to_q8_0(const float* values, std::byte* block) {
  float largest = 0.0F;
  for (size_t i = 0; i < kQ8Elements; ++i) {
    largest = std::max(largest, std::fabs(values[i]));
  }
  const float scale = largest / 127.0F;
  const float inverse = scale != 0.0F ? 1.0F / scale : 0.0F;
  const uint16_t half = half_of(scale);
  put(block, half);
  for (size_t i = 0; i < kQ8Elements; ++i) {
    block[2 + i] = static_cast<std::byte>(static_cast<int8_t>(std::round(values[i] * inverse)));
  }
  return !is_infinite(half);
}

}  // namespace

bool quantise(GgmlType type, std::span<const float> values, std::span<std::byte> blocks) {
  const GgmlBlock shape = block_of(type);
  const auto per_block = static_cast<size_t>(shape.num_elements);
  const bool whole =
      values.size() % per_block == 0 && blocks.size() == values.size() / per_block * shape.size;
  const bool known = type == GgmlType::F32 || type == GgmlType::F16 || type == GgmlType::BF16 ||
                     type == GgmlType::Q8_0;
  if (!whole || !known) {
    throw core::Error(core::ErrorKind::Internal,
                      {.where = "storage.gguf",
                       .what = "values cannot be stored as " + std::string(name_of(type)),
                       .got = std::to_string(values.size()) + " floats into " +
                              std::to_string(blocks.size()) + " bytes",
                       .allowed = "whole blocks of F32, F16, BF16, Q8_0",
                       .hint = ""});
  }
  bool fits = true;
  if (type == GgmlType::F32) {
    std::memcpy(blocks.data(), values.data(), blocks.size());
  } else if (type == GgmlType::F16) {
    fits = to_halves(values, blocks.data());
  } else if (type == GgmlType::BF16) {
    for (size_t i = 0; i < values.size(); ++i) {
      put(blocks.data() + 2 * i, bfloat_of(values[i]));
    }
  } else {
    for (size_t i = 0; i < values.size() / per_block; ++i) {
      fits = to_q8_0(values.data() + i * per_block, blocks.data() + i * shape.size) && fits;
    }
  }
  return fits;
}

}  // namespace kamerton::storage
