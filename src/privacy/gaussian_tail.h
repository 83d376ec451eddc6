// SPDX-License-Identifier: Apache-2.0
// The normal distribution's tail where the C library's functions underflow or cancel.
#pragma once

namespace kamerton::privacy {

/// P[N(0, 1) > z].
double upper_tail(double z);
/// upper_tail(z) / density(z) (Mills' ratio), z >= 0 of any size.
double mills_ratio(double z);
/// ln erfc(x).
double log_erfc(double x);

/// Hockey-stick divergence of N(1, sigma^2) against N(0, sigma^2) at e^epsilon: P(L > eps) - e^eps
/// Q(L > eps) (Balle and Wang 2018).
double gaussian_delta(double sigma, double epsilon);
/// e^epsilon * gaussian_delta(sigma, -epsilon), without overflow or cancellation.
double gaussian_delta_mirrored(double sigma, double epsilon);

}  // namespace kamerton::privacy
