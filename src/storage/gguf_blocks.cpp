// SPDX-License-Identifier: Apache-2.0
// Quantised blocks to floats. Layouts: github.com/ggml-org/ggml/blob/master/src/ggml-common.h.
// The order of operations is the reference's, so the floats have its bits.
#include <bit>
#include <cstring>

#include "kamerton/core/error.h"
#include "kamerton/storage/gguf.h"

namespace kamerton::storage {
namespace {

uint16_t load_u16(const uint8_t* bytes) {
  uint16_t value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

/// IEEE half to single, exact. The multiplication by 2^112 renormalises, also for subnormal halves.
float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000U) << 16;
  const uint32_t rest = half & 0x7fffU;
  if (rest >= 0x7c00U) {
    return std::bit_cast<float>(sign | 0x7f800000U | ((rest & 0x3ffU) << 13));
  }
  const float scaled = std::bit_cast<float>(rest << 13) * std::bit_cast<float>(0x77800000U);
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(scaled));
}

float load_half(const uint8_t* bytes) {
  return half_to_float(load_u16(bytes));
}

void q4_0(const uint8_t* block, float* out) {
  const float d = load_half(block);
  const uint8_t* q = block + 2;
  for (int i = 0; i < 16; ++i) {
    out[i] = static_cast<float>((q[i] & 15) - 8) * d;
    out[i + 16] = static_cast<float>((q[i] >> 4) - 8) * d;
  }
}

void q4_1(const uint8_t* block, float* out) {
  const float d = load_half(block);
  const float m = load_half(block + 2);
  const uint8_t* q = block + 4;
  for (int i = 0; i < 16; ++i) {
    out[i] = static_cast<float>(q[i] & 15) * d + m;
    out[i + 16] = static_cast<float>(q[i] >> 4) * d + m;
  }
}

/// The fifth bits: bit i for element i, bit i + 16 for element i + 16.
uint32_t load_fifth_bits(const uint8_t* bytes) {
  uint32_t value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

void q5_0(const uint8_t* block, float* out) {
  const float d = load_half(block);
  const uint32_t high = load_fifth_bits(block + 2);
  const uint8_t* q = block + 6;
  for (int i = 0; i < 16; ++i) {
    const int low = static_cast<int>((q[i] & 15U) | ((high >> i & 1U) << 4));
    const int upper = static_cast<int>((q[i] >> 4) | ((high >> (i + 16) & 1U) << 4));
    out[i] = static_cast<float>(low - 16) * d;
    out[i + 16] = static_cast<float>(upper - 16) * d;
  }
}

void q5_1(const uint8_t* block, float* out) {
  const float d = load_half(block);
  const float m = load_half(block + 2);
  const uint32_t high = load_fifth_bits(block + 4);
  const uint8_t* q = block + 8;
  for (int i = 0; i < 16; ++i) {
    out[i] = static_cast<float>((q[i] & 15U) | ((high >> i & 1U) << 4)) * d + m;
    out[i + 16] = static_cast<float>((q[i] >> 4) | ((high >> (i + 16) & 1U) << 4)) * d + m;
  }
}

void q8_0(const uint8_t* block, float* out) {
  const float d = load_half(block);
  const auto* q = reinterpret_cast<const int8_t*>(block + 2);
  for (int i = 0; i < 32; ++i) {
    out[i] = static_cast<float>(q[i]) * d;
  }
}

struct ScaleAndMin {
  float scale;
  float min;
};

/// Group j (of 8) of the 6-bit scales and minima packed into 12 bytes.
ScaleAndMin group_of_k(const uint8_t* packed, int j, float d, float dmin) {
  int scale;
  int min;
  if (j < 4) {
    scale = packed[j] & 63;
    min = packed[j + 4] & 63;
  } else {
    scale = (packed[j + 4] & 15) | ((packed[j - 4] >> 6) << 4);
    min = (packed[j + 4] >> 4) | ((packed[j] >> 6) << 4);
  }
  return {d * static_cast<float>(scale), dmin * static_cast<float>(min)};
}

void q4_k(const uint8_t* block, float* out) {
  const float d = load_half(block);
  const float dmin = load_half(block + 2);
  const uint8_t* q = block + 16;
  for (int pair = 0; pair < 4; ++pair, q += 32, out += 64) {
    const auto low = group_of_k(block + 4, 2 * pair, d, dmin);
    const auto high = group_of_k(block + 4, 2 * pair + 1, d, dmin);
    for (int i = 0; i < 32; ++i) {
      out[i] = low.scale * static_cast<float>(q[i] & 15) - low.min;
      out[i + 32] = high.scale * static_cast<float>(q[i] >> 4) - high.min;
    }
  }
}

void q5_k(const uint8_t* block, float* out) {
  const float d = load_half(block);
  const float dmin = load_half(block + 2);
  const uint8_t* fifth = block + 16;
  const uint8_t* q = block + 48;
  for (int pair = 0; pair < 4; ++pair, q += 32, out += 64) {
    const auto low = group_of_k(block + 4, 2 * pair, d, dmin);
    const auto high = group_of_k(block + 4, 2 * pair + 1, d, dmin);
    for (int i = 0; i < 32; ++i) {
      const int low_q = (q[i] & 15) | ((fifth[i] >> (2 * pair) & 1) << 4);
      const int high_q = (q[i] >> 4) | ((fifth[i] >> (2 * pair + 1) & 1) << 4);
      out[i] = low.scale * static_cast<float>(low_q) - low.min;
      out[i + 32] = high.scale * static_cast<float>(high_q) - high.min;
    }
  }
}

void q6_k(const uint8_t* block, float* out) {
  const uint8_t* ql = block;
  const uint8_t* qh = block + 128;
  const auto* scales = reinterpret_cast<const int8_t*>(block + 192);
  const float d = load_half(block + 208);
  for (int half = 0; half < 2; ++half, out += 128, ql += 64, qh += 32, scales += 8) {
    for (int i = 0; i < 32; ++i) {
      const int values[4] = {(ql[i] & 15) | ((qh[i] & 3) << 4),
                             (ql[i + 32] & 15) | ((qh[i] >> 2 & 3) << 4),
                             (ql[i] >> 4) | ((qh[i] >> 4 & 3) << 4),
                             (ql[i + 32] >> 4) | ((qh[i] >> 6 & 3) << 4)};
      for (int part = 0; part < 4; ++part) {
        const float scale = d * static_cast<float>(scales[2 * part + i / 16]);
        out[32 * part + i] = scale * static_cast<float>(values[part] - 32);
      }
    }
  }
}

template <void (*kBlock)(const uint8_t*, float*)>
void each_block(const uint8_t* in, GgmlBlock shape, std::span<float> output) {
  const size_t num_blocks = output.size() / static_cast<size_t>(shape.num_elements);
  for (size_t i = 0; i < num_blocks; ++i) {
    kBlock(in + i * shape.size, output.data() + i * static_cast<size_t>(shape.num_elements));
  }
}

}  // namespace

std::string_view name_of(GgmlType type) noexcept {
  switch (type) {
    case GgmlType::F32:
      return "F32";
    case GgmlType::F16:
      return "F16";
    case GgmlType::BF16:
      return "BF16";
    case GgmlType::Q4_0:
      return "Q4_0";
    case GgmlType::Q4_1:
      return "Q4_1";
    case GgmlType::Q5_0:
      return "Q5_0";
    case GgmlType::Q5_1:
      return "Q5_1";
    case GgmlType::Q8_0:
      return "Q8_0";
    case GgmlType::Q4_K:
      return "Q4_K";
    case GgmlType::Q5_K:
      return "Q5_K";
    case GgmlType::Q6_K:
      return "Q6_K";
  }
  return "?";
}

GgmlBlock block_of(GgmlType type) noexcept {
  switch (type) {
    case GgmlType::F32:
      return {1, 4};
    case GgmlType::F16:
    case GgmlType::BF16:
      return {1, 2};
    case GgmlType::Q4_0:
      return {32, 18};
    case GgmlType::Q4_1:
      return {32, 20};
    case GgmlType::Q5_0:
      return {32, 22};
    case GgmlType::Q5_1:
      return {32, 24};
    case GgmlType::Q8_0:
      return {32, 34};
    case GgmlType::Q4_K:
      return {256, 144};
    case GgmlType::Q5_K:
      return {256, 176};
    case GgmlType::Q6_K:
      return {256, 210};
  }
  return {1, 0};
}

void dequantise(GgmlType type, std::span<const std::byte> blocks, std::span<float> output) {
  const auto shape = block_of(type);
  const auto per_block = static_cast<size_t>(shape.num_elements);
  if (output.size() % per_block != 0 || blocks.size() != output.size() / per_block * shape.size) {
    throw core::Error(
        core::ErrorKind::Internal,
        {.where = "storage.gguf",
         .what = "a buffer that does not fit whole blocks of " + std::string(name_of(type)),
         .got = std::to_string(blocks.size()) + " bytes for " + std::to_string(output.size()) +
                " floats",
         .allowed = std::to_string(shape.size) + " bytes for " + std::to_string(per_block),
         .hint = ""});
  }
  const auto* in = reinterpret_cast<const uint8_t*>(blocks.data());
  switch (type) {
    case GgmlType::F32:
      std::memcpy(output.data(), in, blocks.size());
      return;
    case GgmlType::F16:
      for (size_t i = 0; i < output.size(); ++i) {
        output[i] = load_half(in + 2 * i);
      }
      return;
    case GgmlType::BF16:
      for (size_t i = 0; i < output.size(); ++i) {
        output[i] = std::bit_cast<float>(static_cast<uint32_t>(load_u16(in + 2 * i)) << 16);
      }
      return;
    case GgmlType::Q4_0:
      return each_block<q4_0>(in, shape, output);
    case GgmlType::Q4_1:
      return each_block<q4_1>(in, shape, output);
    case GgmlType::Q5_0:
      return each_block<q5_0>(in, shape, output);
    case GgmlType::Q5_1:
      return each_block<q5_1>(in, shape, output);
    case GgmlType::Q8_0:
      return each_block<q8_0>(in, shape, output);
    case GgmlType::Q4_K:
      return each_block<q4_k>(in, shape, output);
    case GgmlType::Q5_K:
      return each_block<q5_k>(in, shape, output);
    case GgmlType::Q6_K:
      return each_block<q6_k>(in, shape, output);
  }
}

}  // namespace kamerton::storage
