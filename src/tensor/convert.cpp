// SPDX-License-Identifier: Apache-2.0
#include "kamerton/tensor/convert.h"

#include "kamerton/tensor/kernels.h"

#include "raw.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace kamerton::tensor {
namespace {

/// Widens past the cache: what is loaded now is used much later, and a store through the cache
/// would read the memory first. False when a value is not finite.
bool widen(const simd::Bf16* from, float* to, int64_t n) {
  int64_t i = 0;
  bool finite = true;
#if defined(__SSE2__)
  const auto until_aligned =
      static_cast<int64_t>((16 - reinterpret_cast<uintptr_t>(to) % 16) % 16 / sizeof(float));
  i = until_aligned < n ? until_aligned : n;
  finite = simd::all_finite(from, i);
  simd::to_float(from, to, i);
  const __m128i exponent = _mm_set1_epi16(0x7f80);
  const __m128i zero = _mm_setzero_si128();
  __m128i bad = zero;
  for (; i + 16 <= n; i += 16) {
    const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
    const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i + 8));
    bad = _mm_or_si128(bad, _mm_cmpeq_epi16(_mm_and_si128(a, exponent), exponent));
    bad = _mm_or_si128(bad, _mm_cmpeq_epi16(_mm_and_si128(b, exponent), exponent));
    auto* out = reinterpret_cast<__m128i*>(to + i);
    _mm_stream_si128(out, _mm_unpacklo_epi16(zero, a));
    _mm_stream_si128(out + 1, _mm_unpackhi_epi16(zero, a));
    _mm_stream_si128(out + 2, _mm_unpacklo_epi16(zero, b));
    _mm_stream_si128(out + 3, _mm_unpackhi_epi16(zero, b));
  }
  _mm_sfence();
  finite = finite && _mm_movemask_epi8(bad) == 0;
#endif
  finite = finite && simd::all_finite(from + i, n - i);
  simd::to_float(from + i, to + i, n - i);
  return finite;
}

}  // namespace

bool convert_finite(const at::Tensor& stored, at::Tensor& out) {
  const bool widens = stored.scalar_type() == at::kBFloat16 && out.scalar_type() == at::kFloat;
  if (!widens) {
    out.copy_(stored);
    return all_finite(out);
  }
  return widen(read_ptr<simd::Bf16>(stored), out.mutable_data_ptr<float>(), stored.numel());
}

}  // namespace kamerton::tensor
