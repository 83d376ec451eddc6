// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "simd_inline.h"

namespace kamerton::tensor::simd {
namespace {

template <class T>
KAMERTON_INLINE float dot_of(const float* q, const T* k, int64_t d) {
  float total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t i = 0; i < d; ++i) {
    total += q[i] * load(k, i);
  }
  return total;
}

/// Online softmax (Milakov & Gimelshein 2018): a page rescales what earlier pages left.
template <class T>
KAMERTON_INLINE void decode_of(const float* q,
                               const T* keys,
                               const T* values,
                               int64_t length,
                               int64_t stride,
                               int64_t d,
                               DecodeState& state,
                               float* out,
                               float* scratch) {
  float top = state.max;
  for (int64_t t = 0; t < length; ++t) {
    scratch[t] = dot_of(q, keys + t * stride, d);
  }
  if (state.soft_cap > 0) {
    const float inverse = 1.0f / state.soft_cap;
#pragma omp simd
    for (int64_t t = 0; t < length; ++t) {
      scratch[t] = state.soft_cap * tanh_of(scratch[t] * inverse);
    }
  }
  for (int64_t t = 0; t < length; ++t) {
    top = scratch[t] > top ? scratch[t] : top;
  }
  const float rescale = state.sum > 0 ? exp_of(state.max - top) : 0.0f;
  float sum = state.sum * rescale;
#pragma omp simd
  for (int64_t i = 0; i < d; ++i) {
    out[i] *= rescale;
  }
#pragma omp simd reduction(+ : sum)
  for (int64_t t = 0; t < length; ++t) {
    scratch[t] = exp_of(scratch[t] - top);
    sum += scratch[t];
  }
  for (int64_t t = 0; t < length; ++t) {
    const float p = scratch[t];
    const T* v = values + t * stride;
#pragma omp simd
    for (int64_t i = 0; i < d; ++i) {
      out[i] += p * load(v, i);
    }
  }
  state.max = top;
  state.sum = sum;
}

template <class T>
KAMERTON_INLINE void matvec_of(const float* x, const T* w, float* y, int64_t out, int64_t in) {
  for (int64_t o = 0; o < out; ++o) {
    const T* row = w + o * in;
    float a = 0;
#pragma omp simd reduction(+ : a)
    for (int64_t i = 0; i < in; ++i) {
      a += x[i] * load(row, i);
    }
    y[o] = a;
  }
}

}  // namespace

KAMERTON_CLONES void decode_page(const float* q,
                                 const float* keys,
                                 const float* values,
                                 int64_t length,
                                 int64_t stride,
                                 int64_t d,
                                 DecodeState& state,
                                 float* out,
                                 float* scratch) {
  decode_of(q, keys, values, length, stride, d, state, out, scratch);
}
KAMERTON_CLONES void decode_page(const float* q,
                                 const Bf16* keys,
                                 const Bf16* values,
                                 int64_t length,
                                 int64_t stride,
                                 int64_t d,
                                 DecodeState& state,
                                 float* out,
                                 float* scratch) {
  decode_of(q, keys, values, length, stride, d, state, out, scratch);
}
KAMERTON_CLONES void matvec(const float* x, const float* w, float* y, int64_t out, int64_t in) {
  matvec_of(x, w, y, out, in);
}
KAMERTON_CLONES void matvec(const float* x, const Bf16* w, float* y, int64_t out, int64_t in) {
  matvec_of(x, w, y, out, in);
}

}  // namespace kamerton::tensor::simd
