// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

namespace kamerton::privacy {

/// ln of n over k.
inline double log_choose(double n, double k) {
  return std::lgamma(n + 1) - std::lgamma(k + 1) - std::lgamma(n - k + 1);
}

}  // namespace kamerton::privacy
