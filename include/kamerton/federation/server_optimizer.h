// SPDX-License-Identifier: Apache-2.0
// What the coordinator does with a mean update, by element: no state but the vectors it is given,
// so any range may be done anywhere and in any order.
#pragma once

#include <cstdint>
#include <span>

#include "kamerton/federation/config.h"

namespace kamerton::federation {

/// d is the mean update, x the model; all in the paper's notation:
///   fedavg, fedprox, scaffold  x += lr d
///   fedavgm   m = momentum m + d; x += lr m                      (arXiv 1909.06335, Flower)
///   fedadam   m = b1 m + (1-b1) d; v = b2 v + (1-b2) d^2; x += lr m / (sqrt v + tau)
///   fedyogi   v -= (1-b2) d^2 sign(v - d^2)                      (arXiv 2003.00295)
///   fedadagrad v += d^2
///   diloco    m = momentum m + d; x += lr (d + momentum m)       (Nesterov, arXiv 2311.08105)
/// v starts at tau^2 or 0 (server.initial_v). With server.bias_correction lr of round r (from 1) is
/// lr sqrt(1 - b2^(r+1)) / (1 - b1^(r+1)), as Flower has it.
class ServerOptimizer {
 public:
  explicit ServerOptimizer(const FederationConfig& config);

  bool has_momentum() const;       ///< m is read and written
  bool has_second_moment() const;  ///< v is read and written
  float initial_second_moment() const;
  /// In place; computed in double, rounded once an element. m and v may be empty where not used.
  void step(int64_t round,
            std::span<const double> mean_update,
            std::span<float> x,
            std::span<float> m,
            std::span<float> v) const;

 private:
  FederationConfig config_;
};

}  // namespace kamerton::federation
