// SPDX-License-Identifier: Apache-2.0
#include "topology.h"

#include <algorithm>
#include <vector>

#include <sched.h>
#include <unistd.h>

#include "mpi_check.h"

namespace kamerton::comm {
namespace {

cpu_set_t own_cores() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (sched_getaffinity(0, sizeof cores, &cores) != 0) {
    CPU_SET(0,
            &cores);  // more than 1024 cores: the mask does not fit; count what sysconf says below
  }
  return cores;
}

/// Cores of this rank, of all ranks of the node, and the ranks that share exactly this rank's
/// cores.
void find_cores(MPI_Comm node, Topology& topology) {
  const cpu_set_t mine = own_cores();
  std::vector<cpu_set_t> all(static_cast<size_t>(topology.local_size));
  mpi_check(MPI_Allgather(&mine, sizeof mine, MPI_BYTE, all.data(), sizeof mine, MPI_BYTE, node));
  cpu_set_t together;
  CPU_ZERO(&together);
  topology.ranks_sharing_cores = 0;
  for (const cpu_set_t& set : all) {
    CPU_OR(&together, &together, &set);
    topology.ranks_sharing_cores += CPU_EQUAL(&set, &mine) ? 1 : 0;
  }
  topology.cores = std::max(1, CPU_COUNT(&mine));
  topology.cores_per_node = std::max(1, CPU_COUNT(&together));
}

/// Numbers the nodes by their lowest rank.
void find_nodes(MPI_Comm world, MPI_Comm node, Topology& topology) {
  int lowest = topology.rank;
  mpi_check(MPI_Bcast(&lowest, 1, MPI_INT, 0, node));
  std::vector<int> all(static_cast<size_t>(topology.world_size));
  mpi_check(MPI_Allgather(&lowest, 1, MPI_INT, all.data(), 1, MPI_INT, world));
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  topology.num_nodes = static_cast<int>(all.size());
  topology.node = static_cast<int>(std::lower_bound(all.begin(), all.end(), lowest) - all.begin());
}

}  // namespace

Topology find_topology(MPI_Comm world, MPI_Comm& node) {
  Topology topology;
  mpi_check(MPI_Comm_rank(world, &topology.rank));
  mpi_check(MPI_Comm_size(world, &topology.world_size));
  mpi_check(MPI_Comm_split_type(world, MPI_COMM_TYPE_SHARED, topology.rank, MPI_INFO_NULL, &node));
  mpi_check(MPI_Comm_set_errhandler(node, MPI_ERRORS_RETURN));
  mpi_check(MPI_Comm_rank(node, &topology.local_rank));
  mpi_check(MPI_Comm_size(node, &topology.local_size));
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  topology.host = host;
  find_cores(node, topology);
  find_nodes(world, node, topology);
  return topology;
}

}  // namespace kamerton::comm
