// SPDX-License-Identifier: Apache-2.0
#include "kamerton/mesh/threads.h"

#include <algorithm>

#include <ATen/Parallel.h>
#include <fmt/format.h>

namespace kamerton::mesh {

int threads_of_rank(const comm::Topology& topology) {
  if (topology.requested_threads > 0) {
    return topology.requested_threads;
  }
  // A launcher that binds gives each rank its own cores; one that does not shows every rank all of
  // them.
  return std::max(1, topology.cores / std::max(1, topology.ranks_sharing_cores));
}

std::string choose_threads(const comm::Topology& topology) {
  const int threads = threads_of_rank(topology);
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

}  // namespace kamerton::mesh
