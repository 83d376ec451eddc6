// SPDX-License-Identifier: Apache-2.0
// Privacy-loss distributions on a grid of equal steps.
#pragma once

#include <cstdint>
#include <vector>

#include "kamerton/privacy/accountant.h"

namespace kamerton::privacy {

/// masses[i]: probability of the loss (first + i) * interval; infinity: of a loss without bound.
struct LossGrid {
  double interval = 0;
  int64_t first = 0;
  std::vector<double> masses;
  double infinity = 0;

  /// Sum of (1 - e^(epsilon - loss)) over larger losses, plus infinity.
  double delta(double epsilon) const;
  /// The least epsilon >= 0 with delta(epsilon) <= delta; infinite when there is none.
  double epsilon(double delta) const;
};

enum class Neighbor { Removed, Added };

/// One release, never below the truth ("connect the dots"): the grid whose curve delta(epsilon)
/// goes through the exact one at each grid point and is a straight line in e^epsilon between them.
/// lost: mass in the far tails that may be called infinite. Empty masses: more than max_points;
/// needed_points: how many it would take.
LossGrid loss_of(const NoisyRelease& release,
                 Neighbor neighbor,
                 double interval,
                 double lost,
                 uint64_t max_points,
                 double& needed_points);

struct RepeatedLoss {
  LossGrid loss;
  uint64_t count = 1;
};
/// The sum of independent losses on a common interval. Empty masses: more than max_points.
LossGrid compose(const std::vector<RepeatedLoss>& parts,
                 double tail,
                 uint64_t max_points,
                 double& needed_points);

}  // namespace kamerton::privacy
