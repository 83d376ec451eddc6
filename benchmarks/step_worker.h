// SPDX-License-Identifier: Apache-2.0
// Our side of step_bench: the product's own engine on synthetic rows.
#pragma once

#include <string>

namespace kamerton::bench {

struct WorkerOptions {
  std::string shape = "S";
  std::string dtype = "fp32";
  int steps = 8;
  int threads = 2;
  int batch = 4;
  int length = 512;
};

/// Prints one JSON line a step on rank 0 {"seconds", "cpu", "loss"}, then {"peak_bytes"}.
int run_worker(int argc, char** argv, const WorkerOptions& options);

}  // namespace kamerton::bench
