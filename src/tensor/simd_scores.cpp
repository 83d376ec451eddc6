// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "simd_inline.h"

namespace kamerton::tensor::simd {
namespace {

/// Products to scores, in place.
KAMERTON_INLINE void shape_scores(float* z, int64_t n, float scale, float cap) {
  if (cap > 0) {
    const float turn = scale / cap;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      z[i] = cap * tanh_of(z[i] * turn);
    }
  } else {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      z[i] *= scale;
    }
  }
}

KAMERTON_INLINE void clear_outside(float* x, const ScoreRow& row) {
  for (int64_t i = 0; i < row.first; ++i) {
    x[i] = 0;
  }
  for (int64_t i = row.first + row.seen; i < row.count; ++i) {
    x[i] = 0;
  }
}

KAMERTON_INLINE float softmax_of(float* scores, const ScoreRow& row) {
  float* z = scores + row.first;
  shape_scores(z, row.seen, row.scale, row.soft_cap);
  float top = z[0];
#pragma omp simd reduction(max : top)
  for (int64_t i = 0; i < row.seen; ++i) {
    top = z[i] > top ? z[i] : top;
  }
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < row.seen; ++i) {
    z[i] = exp_of(z[i] - top);
    sum += z[i];
  }
  const float inverse = 1.0f / sum;
#pragma omp simd
  for (int64_t i = 0; i < row.seen; ++i) {
    z[i] *= inverse;
  }
  clear_outside(scores, row);
  return top + std::log(sum);
}

/// ds = p (dp - delta), times the slope 1 - (z / cap)^2 of the cap, times scale.
KAMERTON_INLINE void gradient_of(
    float* scores, const ScoreRow& row, float log_sum, const float* dp, float delta, float* p) {
  float* z = scores + row.first;
  float* prob = p + row.first;
  const float* incoming = dp + row.first;
  shape_scores(z, row.seen, row.scale, row.soft_cap);
  const float inverse = row.soft_cap > 0 ? 1.0f / row.soft_cap : 0.0f;
#pragma omp simd
  for (int64_t i = 0; i < row.seen; ++i) {
    const float e = exp_of(z[i] - log_sum);
    const float t = z[i] * inverse;
    prob[i] = e;
    z[i] = e * (incoming[i] - delta) * (1.0f - t * t) * row.scale;
  }
  clear_outside(scores, row);
  clear_outside(p, row);
}

}  // namespace

KAMERTON_CLONES float score_softmax(float* scores, const ScoreRow& row) {
  return softmax_of(scores, row);
}
KAMERTON_CLONES void score_gradient(
    float* scores, const ScoreRow& row, float log_sum, const float* dp, float delta, float* p) {
  gradient_of(scores, row, log_sum, dp, delta, p);
}

}  // namespace kamerton::tensor::simd
