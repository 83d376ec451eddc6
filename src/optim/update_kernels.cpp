// SPDX-License-Identifier: Apache-2.0
// Compiled with -ffp-contract=off: vector body, vector tail and scalar code then do the same
// operations (engine: an element's bits must not depend on where a shard ends). The same loop is
// built for wider vectors and chosen at run time.
#include "update_kernels.h"

#include <bit>
#include <cmath>

#if defined(__x86_64__)
#define KAMERTON_WIDE(isa) __attribute__((target(isa)))
#endif
#define KAMERTON_INLINE inline __attribute__((always_inline))

namespace kamerton::optim {

namespace {

/// Round to nearest even; not-a-number stays not-a-number.
KAMERTON_INLINE uint16_t to_bf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16;
  const bool nan = (bits & 0x7FFFFFFFU) > 0x7F800000U;
  return static_cast<uint16_t>(nan ? 0x7FC0U : rounded);
}

template <bool kLow>
KAMERTON_INLINE void adamw_loop(float* __restrict param,
                                uint16_t* __restrict low,
                                const float* __restrict grad,
                                float* __restrict exp_avg,
                                float* __restrict exp_avg_sq,
                                int64_t n,
                                AdamwFactors f) {
  for (int64_t i = 0; i < n; ++i) {
    const float g = grad[i] * f.clip;
    const float m = exp_avg[i] + f.one_minus_beta1 * (g - exp_avg[i]);
    const float v = f.beta2 * exp_avg_sq[i] + f.one_minus_beta2 * g * g;
    const float denominator = std::sqrt(v) * f.inv_sqrt_bias2 + f.eps;
    const float p = param[i] * f.keep - f.step_size * m / denominator;
    exp_avg[i] = m;
    exp_avg_sq[i] = v;
    param[i] = p;
    if constexpr (kLow) {
      low[i] = to_bf16(p);
    }
  }
}

template <bool kLow, bool kMomentum>
KAMERTON_INLINE void sgd_loop(float* __restrict param,
                              uint16_t* __restrict low,
                              const float* __restrict grad,
                              float* __restrict buffer,
                              int64_t n,
                              SgdFactors f) {
  for (int64_t i = 0; i < n; ++i) {
    float d = grad[i] * f.clip + f.weight_decay * param[i];
    if constexpr (kMomentum) {
      d = f.momentum * buffer[i] + d;
      buffer[i] = d;
    }
    const float p = param[i] - f.lr * d;
    param[i] = p;
    if constexpr (kLow) {
      low[i] = to_bf16(p);
    }
  }
}

KAMERTON_INLINE void adamw_any(float* param,
                               uint16_t* low,
                               const float* grad,
                               float* m,
                               float* v,
                               int64_t n,
                               const AdamwFactors& f) {
  if (low != nullptr) {
    adamw_loop<true>(param, low, grad, m, v, n, f);
  } else {
    adamw_loop<false>(param, low, grad, m, v, n, f);
  }
}

KAMERTON_INLINE void sgd_any(
    float* param, uint16_t* low, const float* grad, float* buffer, int64_t n, const SgdFactors& f) {
  if (buffer != nullptr) {
    low != nullptr ? sgd_loop<true, true>(param, low, grad, buffer, n, f)
                   : sgd_loop<false, true>(param, low, grad, buffer, n, f);
  } else {
    low != nullptr ? sgd_loop<true, false>(param, low, grad, buffer, n, f)
                   : sgd_loop<false, false>(param, low, grad, buffer, n, f);
  }
}

/// Sixteen running sums, element i into sum i mod 16, then added in order.
KAMERTON_INLINE double squares_any(const float* __restrict values, int64_t n) {
  constexpr int64_t kLanes = 16;
  double sums[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const auto value = static_cast<double>(values[i + lane]);
      sums[lane] += value * value;
    }
  }
  for (int64_t lane = 0; i + lane < n; ++lane) {
    const auto value = static_cast<double>(values[i + lane]);
    sums[lane] += value * value;
  }
  double total = 0.0;
  for (const double sum : sums) {
    total += sum;
  }
  return total;
}

#if defined(__x86_64__)
KAMERTON_WIDE("avx2")
void adamw_avx2(float* param,
                uint16_t* low,
                const float* grad,
                float* m,
                float* v,
                int64_t n,
                const AdamwFactors& f) {
  adamw_any(param, low, grad, m, v, n, f);
}
KAMERTON_WIDE("avx512f,avx512bw,avx512vl,avx512dq")
void adamw_avx512(float* param,
                  uint16_t* low,
                  const float* grad,
                  float* m,
                  float* v,
                  int64_t n,
                  const AdamwFactors& f) {
  adamw_any(param, low, grad, m, v, n, f);
}
KAMERTON_WIDE("avx2")
void sgd_avx2(
    float* param, uint16_t* low, const float* grad, float* buffer, int64_t n, const SgdFactors& f) {
  sgd_any(param, low, grad, buffer, n, f);
}
KAMERTON_WIDE("avx2") double squares_avx2(const float* values, int64_t n) {
  return squares_any(values, n);
}

bool has_avx2() {
  static const bool has = __builtin_cpu_supports("avx2") != 0;
  return has;
}
bool has_avx512() {
  static const bool has =
      __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
      __builtin_cpu_supports("avx512vl") != 0 && __builtin_cpu_supports("avx512dq") != 0;
  return has;
}
#endif

}  // namespace

void adamw(float* param,
           uint16_t* low,
           const float* grad,
           float* exp_avg,
           float* exp_avg_sq,
           int64_t n,
           const AdamwFactors& factors) {
#if defined(__x86_64__)
  if (has_avx512()) {
    adamw_avx512(param, low, grad, exp_avg, exp_avg_sq, n, factors);
    return;
  }
  if (has_avx2()) {
    adamw_avx2(param, low, grad, exp_avg, exp_avg_sq, n, factors);
    return;
  }
#endif
  adamw_any(param, low, grad, exp_avg, exp_avg_sq, n, factors);
}

void sgd(float* param,
         uint16_t* low,
         const float* grad,
         float* buffer,
         int64_t n,
         const SgdFactors& factors) {
#if defined(__x86_64__)
  if (has_avx2()) {
    sgd_avx2(param, low, grad, buffer, n, factors);
    return;
  }
#endif
  sgd_any(param, low, grad, buffer, n, factors);
}

double sum_of_squares(const float* values, int64_t n) {
#if defined(__x86_64__)
  if (has_avx2()) {
    return squares_avx2(values, n);
  }
#endif
  return squares_any(values, n);
}

}  // namespace kamerton::optim
