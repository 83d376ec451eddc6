// SPDX-License-Identifier: Apache-2.0
// How many neighbors make a sparse graph as safe as the complete one (Bell et al. 2020, section 3).
#include <algorithm>
#include <cmath>

#include "kamerton/privacy/secure_round.h"

#include "faults.h"
#include "log_choose.h"

namespace kamerton::privacy {
namespace {

/// ln P[at least `least` marked ones among `drawn` of `all`, of which `marked` are marked].
double log_tail(int64_t all, int64_t marked, int64_t drawn, int64_t least) {
  const int64_t most = std::min(marked, drawn);
  const int64_t begin = std::max({least, drawn - (all - marked), int64_t{0}});
  double sum = -HUGE_VAL;
  for (int64_t k = begin; k <= most; ++k) {
    const double term =
        log_choose(static_cast<double>(marked), static_cast<double>(k)) +
        log_choose(static_cast<double>(all - marked), static_cast<double>(drawn - k)) -
        log_choose(static_cast<double>(all), static_cast<double>(drawn));
    const double high = std::max(sum, term);
    sum = high + std::log(std::exp(sum - high) + std::exp(term - high));
  }
  return sum;
}

}  // namespace

uint32_t choose_neighbors(size_t sites, double corrupt, double dropped, int security) {
  if (!(corrupt >= 0) || !(dropped >= 0) || !(corrupt + dropped < 1.0 / 3) || security < 1) {
    bad_choice("privacy.choose_neighbors",
               "corrupt and dropped sites together must be fewer than a third");
  }
  const auto n = static_cast<int64_t>(sites);
  const auto liars = static_cast<int64_t>(std::ceil(corrupt * static_cast<double>(n)));
  const auto lost = static_cast<int64_t>(std::ceil(dropped * static_cast<double>(n)));
  const double budget = -security * std::log(2.0) - std::log(static_cast<double>(n));
  for (int64_t k = 4; k < n - 1; k += 2) {
    const auto threshold = static_cast<int64_t>(two_thirds(static_cast<size_t>(k) + 1));
    // Too few holders: more than k + 1 - threshold of the neighbors are gone.
    const bool private_enough = log_tail(n - 1, liars, k, threshold - 1) <= budget;
    const bool complete_enough = log_tail(n - 1, lost, k, k + 2 - threshold) <= budget;
    const bool connected =
        static_cast<double>(k) / 2 * std::log(std::max(corrupt + dropped, 1e-9)) <= budget;
    if (private_enough && complete_enough && connected) {
      return static_cast<uint32_t>(k);
    }
  }
  return 0;
}

}  // namespace kamerton::privacy
