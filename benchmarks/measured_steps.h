// SPDX-License-Identifier: Apache-2.0
// Steps of a program that prints a line of JSON for each: ours and the peer's alike.
#pragma once

#include <string>
#include <vector>

namespace kamerton::bench {

struct MeasuredSteps {
  std::vector<double> seconds;
  std::vector<double> cpu;  ///< seconds of processor time, where the program says them
  double peak_bytes = 0;
  std::string failure;  ///< empty when it ran
};

/// Runs `command` and adds its steps but for the first `warm_up` (allocation, tuning, compilation).
/// Lines: {"seconds": s[, "cpu": s]} a step, {"peak_bytes": n}, {"failure": text}; others are
/// passed over. A program that ends with an error or shows no step is a failure.
void measure(const std::string& command, int warm_up, MeasuredSteps& into);

/// 0 for none.
double median(std::vector<double> values);

}  // namespace kamerton::bench
