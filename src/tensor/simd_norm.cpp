// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "simd_inline.h"

namespace kamerton::tensor::simd {
namespace {

template <class T>
KAMERTON_INLINE float sum_of_squares(const T* x, int64_t width) {
  float total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t i = 0; i < width; ++i) {
    const float v = load(x, i);
    total += v * v;
  }
  return total;
}

template <class T>
KAMERTON_INLINE void forward(const NormForward<T>& p, const NormRows& n) {
  for (int64_t row = 0; row < n.rows; ++row) {
    const int64_t at = row * n.width;
    const T* x = p.x + at;
    if (p.delta != nullptr) {
      const T* delta = p.delta + at;
      T* sum = p.sum + at;
#pragma omp simd
      for (int64_t i = 0; i < n.width; ++i) {
        store(sum, i, load(x, i) + load(delta, i));
      }
      x = sum;
    }
    const float mean = sum_of_squares(x, n.width) / static_cast<float>(n.width);
    const float rstd = 1.0f / std::sqrt(mean + n.eps);
    p.rstd[row] = rstd;
    T* y = p.y + at;
#pragma omp simd
    for (int64_t i = 0; i < n.width; ++i) {
      store(y, i, load(x, i) * rstd * (load(p.weight, i) + n.weight_offset));
    }
  }
}

/// With xhat = x rstd and g = dy w: dx = rstd (g - xhat mean(g xhat)).
template <class T>
KAMERTON_INLINE void backward(const NormBackward<T>& p, const NormRows& n) {
  for (int64_t row = 0; row < n.rows; ++row) {
    const int64_t at = row * n.width;
    const T* x = p.x + at;
    const T* dy = p.dy + at;
    T* dx = p.dx + at;
    const float rstd = p.rstd[row];
    float dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < n.width; ++i) {
      dot += load(dy, i) * (load(p.weight, i) + n.weight_offset) * load(x, i);
    }
    const float pull = dot * rstd * rstd / static_cast<float>(n.width);
    if (p.dweight != nullptr) {
      float* dweight = p.dweight;
#pragma omp simd
      for (int64_t i = 0; i < n.width; ++i) {
        dweight[i] += load(dy, i) * load(x, i) * rstd;
      }
    }
    if (p.dsum != nullptr) {
      const T* dsum = p.dsum + at;
#pragma omp simd
      for (int64_t i = 0; i < n.width; ++i) {
        const float g = load(dy, i) * (load(p.weight, i) + n.weight_offset);
        store(dx, i, rstd * (g - load(x, i) * pull) + load(dsum, i));
      }
    } else {
#pragma omp simd
      for (int64_t i = 0; i < n.width; ++i) {
        const float g = load(dy, i) * (load(p.weight, i) + n.weight_offset);
        store(dx, i, rstd * (g - load(x, i) * pull));
      }
    }
  }
}

}  // namespace

KAMERTON_CLONES void norm_forward(const NormForward<float>& p, const NormRows& n) {
  forward(p, n);
}
KAMERTON_CLONES void norm_forward(const NormForward<Bf16>& p, const NormRows& n) {
  forward(p, n);
}
KAMERTON_CLONES void norm_backward(const NormBackward<float>& p, const NormRows& n) {
  backward(p, n);
}
KAMERTON_CLONES void norm_backward(const NormBackward<Bf16>& p, const NormRows& n) {
  backward(p, n);
}

}  // namespace kamerton::tensor::simd
