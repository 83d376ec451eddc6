// SPDX-License-Identifier: Apache-2.0
// A discrete Fourier transform of 2^k points.
#pragma once

#include <complex>
#include <cstdint>
#include <vector>

namespace kamerton::privacy {

/// In place; backward: divided by the number of points, so that the two undo each other.
void fourier(std::vector<std::complex<double>>& values, bool backward);

/// value^count by repeated squaring.
std::complex<double> whole_power(std::complex<double> value, uint64_t count);

}  // namespace kamerton::privacy
