// SPDX-License-Identifier: Apache-2.0
// What the loops of simd_*.cpp are made of; everything inlines into the clone of the instruction
// set in use.
#pragma once

#include <bit>
#include <cstdint>

#include "simd.h"

#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define KAMERTON_CLONES \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define KAMERTON_CLONES
#endif
#define KAMERTON_INLINE static inline __attribute__((always_inline))

namespace kamerton::tensor::simd {

KAMERTON_INLINE float load(const float* p, int64_t i) {
  return p[i];
}
KAMERTON_INLINE float load(const Bf16* p, int64_t i) {
  return std::bit_cast<float>(static_cast<uint32_t>(p[i].bits) << 16);
}
KAMERTON_INLINE void store(float* p, int64_t i, float v) {
  p[i] = v;
}
/// Rounds to nearest, ties to even; a NaN stays one.
KAMERTON_INLINE void store(Bf16* p, int64_t i, float v) {
  const uint32_t u = std::bit_cast<uint32_t>(v);
  const uint32_t rounded = (u + 0x7fffU + ((u >> 16) & 1U)) >> 16;
  p[i].bits = static_cast<uint16_t>((u & 0x7fffffffU) > 0x7f800000U ? 0x7fc0U : rounded);
}

/// e^x to 1e-7 relative, without a call so that loops vectorise (Cephes' expf). Saturates at the
/// ends; NaN stays NaN.
KAMERTON_INLINE float exp_of(float x) {
  float c = x < -87.3f ? -87.3f : x;
  c = c > 88.7f ? 88.7f : c;
  const float n = (c * 1.44269504088896341f + 12582912.0f) - 12582912.0f;
  float r = c - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const float y = p * r * r + r + 1.0f;
  const int32_t exponent = (static_cast<int32_t>(n) + 127) << 23;
  return y * std::bit_cast<float>(exponent);
}

/// tanh to 2e-7 relative (Cephes' tanhf): a polynomial near 0, 1 - 2 / (e^2x + 1) elsewhere.
KAMERTON_INLINE float tanh_of(float x) {
  const float z = x * x;
  float p = -5.70498872745e-3f;
  p = p * z + 2.06390887954e-2f;
  p = p * z - 5.37397155531e-2f;
  p = p * z + 1.33314422036e-1f;
  p = p * z - 3.33332819422e-1f;
  const float small = p * z * x + x;
  const float large = 1.0f - 2.0f / (exp_of(2.0f * x) + 1.0f);
  return z < 0.390625f ? small : large;
}

/// erf to 2e-7 absolute: a quotient of polynomials on [-4, 4] (Eigen's generic_fast_erf).
KAMERTON_INLINE float erf_of(float x) {
  float c = x < -4.0f ? -4.0f : x;
  c = c > 4.0f ? 4.0f : c;
  const float z = c * c;
  float p = -2.72614225801306e-10f;
  p = p * z + 2.77068142495902e-08f;
  p = p * z - 2.10102402082508e-06f;
  p = p * z - 5.69250639462346e-05f;
  p = p * z - 7.34990630326855e-04f;
  p = p * z - 2.95459980854025e-03f;
  p = p * z - 1.60960333262415e-02f;
  float q = -1.45660718464996e-05f;
  q = q * z - 2.13374055278905e-04f;
  q = q * z - 1.68282697438203e-03f;
  q = q * z - 7.37332916720468e-03f;
  q = q * z - 1.42647390514189e-02f;
  return c * p / q;
}

}  // namespace kamerton::tensor::simd
