// SPDX-License-Identifier: Apache-2.0
// The non-linearities of feed-forward parts.
#pragma once

#include <cstdint>

namespace kamerton::tensor {

enum class Activation : uint8_t {
  Silu,      ///< x / (1 + e^-x)
  GeluTanh,  ///< x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) (Hendrycks & Gimpel 2016)
  Gelu,      ///< x Phi(x), Phi the normal distribution function
};

}  // namespace kamerton::tensor
