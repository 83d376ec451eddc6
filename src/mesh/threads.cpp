// SPDX-License-Identifier: Apache-2.0
#include "kamerton/mesh/threads.h"

#include <algorithm>
#include <cstdlib>

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <sched.h>

namespace kamerton::mesh {

int threads_of_rank(const comm::Topology& topology, const char* given) {
  if (given != nullptr && std::atoi(given) > 0) {
    return std::atoi(given);
  }
  // A launcher that binds gives each rank its own cores; one that does not shows every rank all of
  // them.
  const bool bound = topology.cores < topology.cores_per_node;
  return std::max(1, bound ? topology.cores : topology.cores / std::max(1, topology.local_size));
}

std::string choose_threads(const comm::Topology& topology) {
  // The user's word goes first; OpenMP itself reads this variable and nothing else of ours does.
  const int threads = threads_of_rank(topology, std::getenv("OMP_NUM_THREADS"));
  at::set_num_threads(threads);
  std::string text = fmt::format("{} a rank ({} cores, {} rank(s) on the node)",
                                 threads,
                                 topology.cores_per_node,
                                 topology.local_size);
  if (threads * topology.local_size > topology.cores_per_node) {
    text += ": more threads than cores";
  }
  return text;
}

std::string choose_threads() {
  comm::Topology alone;
  cpu_set_t mask;
  CPU_ZERO(&mask);
  if (sched_getaffinity(0, sizeof(mask), &mask) == 0) {
    alone.cores = alone.cores_per_node = std::max(1, CPU_COUNT(&mask));
  }
  return choose_threads(alone);
}

}  // namespace kamerton::mesh
