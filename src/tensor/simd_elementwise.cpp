// SPDX-License-Identifier: Apache-2.0
#include "simd_inline.h"

namespace kamerton::tensor::simd {
namespace {

template <class T>
KAMERTON_INLINE void rotate_of(T* row,
                               int64_t heads,
                               int64_t head_dim,
                               int64_t half,
                               const float* cos,
                               const float* sin,
                               float sign) {
  for (int64_t head = 0; head < heads; ++head) {
    T* first = row + head * head_dim;
    T* second = first + half;
#pragma omp simd
    for (int64_t i = 0; i < half; ++i) {
      const float a = load(first, i);
      const float b = load(second, i);
      const float s = sign * sin[i];
      store(first, i, a * cos[i] - b * s);
      store(second, i, b * cos[i] + a * s);
    }
  }
}

}  // namespace

KAMERTON_CLONES void rotate_row(float* row,
                                int64_t heads,
                                int64_t head_dim,
                                int64_t half,
                                const float* cos,
                                const float* sin,
                                float sign) {
  rotate_of(row, heads, head_dim, half, cos, sin, sign);
}
KAMERTON_CLONES void rotate_row(Bf16* row,
                                int64_t heads,
                                int64_t head_dim,
                                int64_t half,
                                const float* cos,
                                const float* sin,
                                float sign) {
  rotate_of(row, heads, head_dim, half, cos, sin, sign);
}
KAMERTON_CLONES void add_into(float* accumulator, const Bf16* x, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    accumulator[i] += load(x, i);
  }
}
KAMERTON_CLONES void add_into(float* accumulator, const float* x, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    accumulator[i] += x[i];
  }
}
KAMERTON_CLONES bool all_finite(const float* x, int64_t n) {
  uint32_t worst = 0;
#pragma omp simd reduction(max : worst)
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t exponent = std::bit_cast<uint32_t>(x[i]) & 0x7f800000U;
    worst = exponent > worst ? exponent : worst;
  }
  return worst != 0x7f800000U;
}
KAMERTON_CLONES bool all_finite(const Bf16* x, int64_t n) {
  uint16_t worst = 0;
#pragma omp simd reduction(max : worst)
  for (int64_t i = 0; i < n; ++i) {
    const auto exponent = static_cast<uint16_t>(x[i].bits & 0x7f80U);
    worst = exponent > worst ? exponent : worst;
  }
  return worst != 0x7f80U;
}
KAMERTON_CLONES void to_float(const Bf16* x, float* y, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    y[i] = load(x, i);
  }
}
KAMERTON_CLONES void to_bf16(const float* x, Bf16* y, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    store(y, i, x[i]);
  }
}

}  // namespace kamerton::tensor::simd
