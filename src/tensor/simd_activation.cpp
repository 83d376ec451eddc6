// SPDX-License-Identifier: Apache-2.0
#include "simd_inline.h"

namespace kamerton::tensor::simd {
namespace {

/// f(x) = x * share(x); the slope is share(x) + x * share'(x).
struct Value {
  float share;
  float slope;
};

struct Silu {
  KAMERTON_INLINE Value at(float x) {
    const float s = 1.0f / (1.0f + exp_of(-x));
    return {s, s * (1.0f + x * (1.0f - s))};
  }
};

/// (1 + tanh u) / 2 = 1 / (1 + e^-2u)
struct GeluTanh {
  KAMERTON_INLINE Value at(float x) {
    constexpr float kTwice = 1.59576912160573f;  // 2 sqrt(2 / pi)
    const float square = x * x;
    const float s = 1.0f / (1.0f + exp_of(-kTwice * x * (1.0f + 0.044715f * square)));
    return {s, s * (1.0f + x * (1.0f - s) * kTwice * (1.0f + 0.134145f * square))};
  }
};

struct Gelu {
  KAMERTON_INLINE Value at(float x) {
    constexpr float kInverseRoot2 = 0.707106781186548f;
    constexpr float kDensityAt0 = 0.398942280401433f;
    const float phi = 0.5f * (1.0f + erf_of(x * kInverseRoot2));
    return {phi, phi + x * kDensityAt0 * exp_of(-0.5f * x * x)};
  }
};

template <class F, class T>
KAMERTON_INLINE void forward_of(const T* gate, const T* up, T* out, int64_t n) {
  if (up == nullptr) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      const float g = load(gate, i);
      store(out, i, g * F::at(g).share);
    }
    return;
  }
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float g = load(gate, i);
    store(out, i, g * F::at(g).share * load(up, i));
  }
}

template <class F, class T>
KAMERTON_INLINE void backward_of(const GatedBackward<T>& p, int64_t n) {
  if (p.up == nullptr) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      store(p.dgate, i, load(p.dout, i) * F::at(load(p.gate, i)).slope);
    }
    return;
  }
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float g = load(p.gate, i);
    const float d = load(p.dout, i);
    const float u = load(p.up, i);
    const Value f = F::at(g);
    store(p.dgate, i, d * u * f.slope);
    store(p.dup, i, d * g * f.share);
  }
}

template <class T>
KAMERTON_INLINE void forward_by(Activation f, const T* gate, const T* up, T* out, int64_t n) {
  switch (f) {
    case Activation::Silu:
      forward_of<Silu>(gate, up, out, n);
      return;
    case Activation::GeluTanh:
      forward_of<GeluTanh>(gate, up, out, n);
      return;
    case Activation::Gelu:
      forward_of<Gelu>(gate, up, out, n);
      return;
  }
}

template <class T>
KAMERTON_INLINE void backward_by(Activation f, const GatedBackward<T>& p, int64_t n) {
  switch (f) {
    case Activation::Silu:
      backward_of<Silu>(p, n);
      return;
    case Activation::GeluTanh:
      backward_of<GeluTanh>(p, n);
      return;
    case Activation::Gelu:
      backward_of<Gelu>(p, n);
      return;
  }
}

}  // namespace

KAMERTON_CLONES void gated_forward(
    Activation f, const float* gate, const float* up, float* out, int64_t n) {
  forward_by(f, gate, up, out, n);
}
KAMERTON_CLONES void gated_forward(
    Activation f, const Bf16* gate, const Bf16* up, Bf16* out, int64_t n) {
  forward_by(f, gate, up, out, n);
}
KAMERTON_CLONES void gated_backward(Activation f, const GatedBackward<float>& p, int64_t n) {
  backward_by(f, p, n);
}
KAMERTON_CLONES void gated_backward(Activation f, const GatedBackward<Bf16>& p, int64_t n) {
  backward_by(f, p, n);
}

}  // namespace kamerton::tensor::simd
