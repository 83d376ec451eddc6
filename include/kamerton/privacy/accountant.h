// SPDX-License-Identifier: Apache-2.0
// How much privacy a list of noisy releases has spent.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace kamerton::privacy {

/// `count` releases of a sum to which each record adds a vector of 2-norm at most 1, with Gaussian
/// noise of standard deviation `noise` on every coordinate. sampling < 1: each record takes part in
/// each release with this probability, independently (Poisson); 1: in every one. Neighbors: data
/// sets that differ by one record, present or not.
struct NoisyRelease {
  double noise = 0.0;
  double sampling = 1.0;
  uint64_t count = 1;

  bool operator==(const NoisyRelease&) const = default;
};

/// Throws ErrorKind::Config for noise that is not positive and finite, sampling outside (0, 1].
void check(const NoisyRelease& release);

/// Rényi divergence of one release, order alpha > 1 (Mironov et al. 1908.10530; fractional orders
/// after its section 3.3).
double renyi_divergence(const NoisyRelease& one, double alpha);
/// The least epsilon over a fixed list of orders (Canonne et al. 2004.00010, proposition 12), after
/// composing all releases. Valid for discrete Gaussian noise of the same parameter too.
double renyi_epsilon(std::span<const NoisyRelease> releases, double delta);
/// The conversion alone: min over (order, divergence) pairs.
double epsilon_of_renyi(std::span<const double> orders,
                        std::span<const double> divergences,
                        double delta);

/// By privacy-loss distributions: never below the truth (the "connect the dots" discretisation of
/// Doroshenko et al. 2207.04380 dominates the exact loss), composed by FFT; the worse of the two
/// directions (record added, record removed). Without sampling it is exact (Gaussian releases
/// compose to one Gaussian).
struct LossOptions {
  double interval = 1e-4;  ///< of the loss grid; made larger when a grid would not fit
  uint64_t max_grid = uint64_t{1} << 20;  ///< points; memory 16 bytes each, three times
  double tail = 1e-16;                    ///< mass that is counted as lost privacy at once
};

class PrivacyAccountant {
 public:
  explicit PrivacyAccountant(const LossOptions& options = {}) : options_(options) {}
  void add(const NoisyRelease& release);
  const std::vector<NoisyRelease>& releases() const noexcept { return releases_; }

  /// 0 when nothing was added. delta in (0, 1); infinite when no epsilon is enough.
  double epsilon(double delta) const;
  double delta(double epsilon) const;

 private:
  LossOptions options_;
  std::vector<NoisyRelease> releases_;
};

/// The least noise (to 1e-3 relative, rounded up) with which `count` releases at this sampling,
/// after those of `spent`, stay within (epsilon, delta). Throws ErrorKind::Config when no noise
/// below 1e4 does.
double calibrate_noise(double epsilon,
                       double delta,
                       double sampling,
                       uint64_t count,
                       std::span<const NoisyRelease> spent = {},
                       const LossOptions& options = {});

/// Discrete Gaussian noise of parameter sigma on one integer of sensitivity `step`: the exact delta
/// at epsilon for `count` = 1 (Canonne et al. 2004.00010).
double discrete_gaussian_delta(double sigma, uint64_t step, double epsilon);

}  // namespace kamerton::privacy
