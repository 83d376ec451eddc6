// SPDX-License-Identifier: Apache-2.0
#include "fourier.h"

#include <cmath>
#include <numbers>

namespace kamerton::privacy {
namespace {

using Complex = std::complex<double>;

/// std::complex's own product checks for infinities at every step.
Complex times(Complex a, Complex b) {
  return {a.real() * b.real() - a.imag() * b.imag(), a.real() * b.imag() + a.imag() * b.real()};
}

}  // namespace

void fourier(std::vector<Complex>& values, bool backward) {
  const size_t n = values.size();
  for (size_t i = 1, j = 0; i < n; ++i) {
    size_t bit = n >> 1;
    for (; (j & bit) != 0; bit >>= 1) {
      j ^= bit;
    }
    j ^= bit;
    if (i < j) {
      std::swap(values[i], values[j]);
    }
  }
  std::vector<Complex> roots(n / 2);
  for (size_t i = 0; i < roots.size(); ++i) {
    const double angle = 2 * std::numbers::pi * static_cast<double>(i) / static_cast<double>(n);
    roots[i] = {std::cos(angle), backward ? std::sin(angle) : -std::sin(angle)};
  }
  for (size_t half = 1; half < n; half *= 2) {
    const size_t stride = n / (2 * half);
    for (size_t begin = 0; begin < n; begin += 2 * half) {
      for (size_t i = 0; i < half; ++i) {
        const Complex odd = times(values[begin + half + i], roots[i * stride]);
        const Complex even = values[begin + i];
        values[begin + i] = even + odd;
        values[begin + half + i] = even - odd;
      }
    }
  }
  if (backward) {
    for (Complex& value : values) {
      value /= static_cast<double>(n);
    }
  }
}

Complex whole_power(Complex value, uint64_t count) {
  Complex result = 1.0;
  for (; count > 0; count >>= 1) {
    if ((count & 1) != 0) {
      result = times(result, value);
    }
    value = times(value, value);
  }
  return result;
}

}  // namespace kamerton::privacy
