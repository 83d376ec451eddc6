// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "simd_inline.h"

namespace kamerton::tensor::simd {
namespace {

/// Scaled and capped logits: cap * tanh(z / cap), tanh(u) = 1 - 2 / (e^2u + 1).
KAMERTON_INLINE void shape_logits(float* z, const LossRow& row) {
  const float scale = row.logit_scale;
  if (row.soft_cap > 0) {
    const float cap = row.soft_cap;
    const float turn = 2.0f * scale / cap;
#pragma omp simd
    for (int64_t i = 0; i < row.vocab; ++i) {
      z[i] = cap - 2.0f * cap / (exp_of(z[i] * turn) + 1.0f);
    }
  } else if (scale != 1.0f) {
#pragma omp simd
    for (int64_t i = 0; i < row.vocab; ++i) {
      z[i] *= scale;
    }
  }
}

KAMERTON_INLINE float largest(const float* z, int64_t n) {
  float top = z[0];
#pragma omp simd reduction(max : top)
  for (int64_t i = 0; i < n; ++i) {
    top = z[i] > top ? z[i] : top;
  }
  return top;
}

/// z becomes e^(z - top); returns their sum. Partial sums of 4096 keep the error from growing with
/// the vocabulary.
KAMERTON_INLINE float exponentials(float* z, int64_t n, float top) {
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += 4096) {
    const int64_t end = begin + 4096 < n ? begin + 4096 : n;
    float part = 0;
#pragma omp simd reduction(+ : part)
    for (int64_t i = begin; i < end; ++i) {
      const float e = exp_of(z[i] - top);
      z[i] = e;
      part += e;
    }
    total += part;
  }
  return static_cast<float>(total);
}

KAMERTON_INLINE bool is_first_largest(const float* z, int64_t target, float top) {
  if (z[target] != top) {
    return false;
  }
  for (int64_t i = 0; i < target; ++i) {
    if (z[i] == top) {
      return false;
    }
  }
  return true;
}

/// z (shaped logits) -> loss; z becomes the probabilities times coefficient when a gradient is
/// wanted. `capped` [vocab] holds the shaped logits when there is a cap (its slope needs them).
KAMERTON_INLINE LossResult loss_of(float* z, const LossRow& row, float* capped) {
  shape_logits(z, row);
  const float top = largest(z, row.vocab);
  const float at_target = z[row.target];
  LossResult result{0, row.count_correct && is_first_largest(z, row.target, top)};
  if (row.soft_cap > 0 && row.gradient) {
    for (int64_t i = 0; i < row.vocab; ++i) {
      capped[i] = z[i];
    }
  }
  const float sum = exponentials(z, row.vocab, top);
  result.nll = std::log(sum) - (at_target - top);
  if (!row.gradient) {
    return result;
  }
  const float scale = row.coefficient / sum * row.logit_scale;
#pragma omp simd
  for (int64_t i = 0; i < row.vocab; ++i) {
    z[i] *= scale;
  }
  z[row.target] -= row.coefficient * row.logit_scale;
  if (row.soft_cap > 0) {
    const float inverse = 1.0f / row.soft_cap;
#pragma omp simd
    for (int64_t i = 0; i < row.vocab; ++i) {
      const float t = capped[i] * inverse;
      z[i] *= 1.0f - t * t;
    }
  }
  return result;
}

}  // namespace

KAMERTON_CLONES LossResult loss_row(float* logits, const LossRow& row, float* scratch) {
  return loss_of(logits, row, scratch);
}

KAMERTON_CLONES LossResult loss_row(Bf16* logits, const LossRow& row, float* scratch) {
#pragma omp simd
  for (int64_t i = 0; i < row.vocab; ++i) {
    scratch[i] = load(logits, i);
  }
  const LossResult result = loss_of(scratch, row, scratch + row.vocab);
  if (row.gradient) {
#pragma omp simd
    for (int64_t i = 0; i < row.vocab; ++i) {
      store(logits, i, scratch[i]);
    }
  }
  return result;
}

}  // namespace kamerton::tensor::simd
