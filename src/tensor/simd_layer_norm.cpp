// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "simd_inline.h"

namespace kamerton::tensor::simd {
namespace {

template <class T>
KAMERTON_INLINE float sum_of(const T* x, int64_t width) {
  float total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t i = 0; i < width; ++i) {
    total += load(x, i);
  }
  return total;
}

/// Around the mean: no cancellation where the mean is large.
template <class T>
KAMERTON_INLINE float sum_of_squares(const T* x, float mean, int64_t width) {
  float total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t i = 0; i < width; ++i) {
    const float v = load(x, i) - mean;
    total += v * v;
  }
  return total;
}

template <class T>
KAMERTON_INLINE void forward(const LayerNormForward<T>& p, const NormRows& n) {
  const auto width = static_cast<float>(n.width);
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
    const float mean = sum_of(x, n.width) / width;
    const float rstd = 1.0f / std::sqrt(sum_of_squares(x, mean, n.width) / width + n.eps);
    p.mean[row] = mean;
    p.rstd[row] = rstd;
    T* y = p.y + at;
    if (p.bias != nullptr) {
#pragma omp simd
      for (int64_t i = 0; i < n.width; ++i) {
        store(y, i, (load(x, i) - mean) * rstd * load(p.weight, i) + load(p.bias, i));
      }
    } else {
#pragma omp simd
      for (int64_t i = 0; i < n.width; ++i) {
        store(y, i, (load(x, i) - mean) * rstd * load(p.weight, i));
      }
    }
  }
}

/// dweight += dy xhat, dbias += dy of one row.
template <class T>
KAMERTON_INLINE void add_parameters(
    const LayerNormBackward<T>& p, const T* x, const T* dy, float mean, float rstd, int64_t width) {
  if (p.dweight != nullptr) {
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) {
      p.dweight[i] += load(dy, i) * (load(x, i) - mean) * rstd;
    }
  }
  if (p.dbias != nullptr) {
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) {
      p.dbias[i] += load(dy, i);
    }
  }
}

/// With xhat = (x - mean) rstd and g = dy w: dx = rstd (g - mean(g) - xhat mean(g xhat)).
template <class T>
KAMERTON_INLINE void backward(const LayerNormBackward<T>& p, const NormRows& n) {
  for (int64_t row = 0; row < n.rows; ++row) {
    const int64_t at = row * n.width;
    const T* x = p.x + at;
    const T* dy = p.dy + at;
    T* dx = p.dx + at;
    const float rstd = p.rstd[row];
    const float mean = p.mean[row];
    float total = 0;
    float dot = 0;
#pragma omp simd reduction(+ : total, dot)
    for (int64_t i = 0; i < n.width; ++i) {
      const float g = load(dy, i) * load(p.weight, i);
      total += g;
      dot += g * (load(x, i) - mean);
    }
    const float middle = total / static_cast<float>(n.width);
    const float pull = dot * rstd * rstd / static_cast<float>(n.width);
    add_parameters(p, x, dy, mean, rstd, n.width);
    if (p.dsum != nullptr) {
      const T* dsum = p.dsum + at;
#pragma omp simd
      for (int64_t i = 0; i < n.width; ++i) {
        const float g = load(dy, i) * load(p.weight, i);
        store(dx, i, rstd * (g - middle - (load(x, i) - mean) * pull) + load(dsum, i));
      }
    } else {
#pragma omp simd
      for (int64_t i = 0; i < n.width; ++i) {
        const float g = load(dy, i) * load(p.weight, i);
        store(dx, i, rstd * (g - middle - (load(x, i) - mean) * pull));
      }
    }
  }
}

}  // namespace

KAMERTON_CLONES void layer_norm_forward(const LayerNormForward<float>& p, const NormRows& n) {
  forward(p, n);
}
KAMERTON_CLONES void layer_norm_forward(const LayerNormForward<Bf16>& p, const NormRows& n) {
  forward(p, n);
}
KAMERTON_CLONES void layer_norm_backward(const LayerNormBackward<float>& p, const NormRows& n) {
  backward(p, n);
}
KAMERTON_CLONES void layer_norm_backward(const LayerNormBackward<Bf16>& p, const NormRows& n) {
  backward(p, n);
}

}  // namespace kamerton::tensor::simd
