// SPDX-License-Identifier: Apache-2.0
// Our side of gpu_bench, in a process of its own: it leaves the card's memory to the peer.
#pragma once

#include <cstdint>

#include "kamerton/comm/gpu_plugin.h"

#include "gpu_shapes.h"

namespace kamerton::bench {

/// Prints a JSON line a step, then one with the peak of device memory. Returns the exit code.
int run_gpu_worker(const comm::GpuSight& sight, const GpuShape& shape, int64_t batch, int steps);

}  // namespace kamerton::bench
