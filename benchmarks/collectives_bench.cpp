// SPDX-License-Identifier: Apache-2.0
// Our collectives beside MPI's in the same run: collectives_bench [MAX_MIB] [REPEATS]. Under
// mpirun, fp32. MiB is the whole tensor's size; GB/s is bus bandwidth: 2 (n-1)/n x bytes / time for
// all-reduce, (n-1)/n for the others.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#include <ATen/ATen.h>
#include <mpi.h>

#include "kamerton/comm/session.h"

#include "mpi_options.h"

namespace {

using kamerton::comm::Group;

struct Race {
  const char* name;
  double bus_factor;
  std::function<void()> ours;
  std::function<void()> peers;
};

/// Seconds of the slowest rank.
double time_once(const Group& world, const std::function<void()>& body) {
  world.barrier();
  const double begin = MPI_Wtime();
  body();
  return world.max(MPI_Wtime() - begin);
}

double median(std::vector<double>& values) {
  std::nth_element(
      values.begin(), values.begin() + static_cast<ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

/// Alternating runs, so that the load of the machine falls on both alike.
void report(const Group& world, const Race& race, int64_t bytes, int repeats) {
  std::vector<double> ours, peers;
  for (int i = 0; i < repeats + 1; ++i) {
    const double a = time_once(world, race.ours);
    const double b = time_once(world, race.peers);
    if (i > 0) {  // the first touches fresh pages
      ours.push_back(a);
      peers.push_back(b);
    }
  }
  const double best_ours = *std::min_element(ours.begin(), ours.end());
  const double best_peers = *std::min_element(peers.begin(), peers.end());
  const double a = median(ours);
  const double b = median(peers);
  if (world.rank() == 0) {
    const double bus = race.bus_factor * static_cast<double>(bytes) / 1e9;
    std::printf("| %-14s | %4lld | %8.2f | %8.2f | %6.2f | %8.2f | %8.2f | %6.2f |\n",
                race.name,
                static_cast<long long>(bytes >> 20),
                a * 1e3,
                best_ours * 1e3,
                bus / a,
                b * 1e3,
                best_peers * 1e3,
                b / a);
    std::fflush(stdout);
  }
}

std::vector<Race> races(const Group& world, at::Tensor& whole, at::Tensor& part) {
  const int count = static_cast<int>(part.numel());
  const int total = static_cast<int>(whole.numel());
  const double n = world.size();
  float* whole_data = whole.data_ptr<float>();
  float* part_data = part.data_ptr<float>();
  return {
      {"reduce-scatter",
       (n - 1) / n,
       [&] { world.reduce_scatter(whole, part); },
       [=] {
         MPI_Reduce_scatter_block(whole_data, part_data, count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
       }},
      {"all-gather",
       (n - 1) / n,
       [&] { world.all_gather(part, whole); },
       [=] {
         MPI_Allgather(part_data, count, MPI_FLOAT, whole_data, count, MPI_FLOAT, MPI_COMM_WORLD);
       }},
      {"all-reduce",
       2 * (n - 1) / n,
       [&] { world.all_reduce(whole); },
       [=] {
         MPI_Allreduce(MPI_IN_PLACE, whole_data, total, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
       }}};
}

}  // namespace

int main(int argc, char** argv) {
  kamerton::comm::Session session(argc, argv);
  kamerton::comm::MpiOptions options;
  if (argc > 3) {
    options.staging_bytes = std::atoll(argv[3]) << 10;
  }
  const Group world = argc > 3 ? make_world_group(options) : session.world();
  const int64_t max_mib = argc > 1 ? std::atoll(argv[1]) : 256;
  const int repeats = argc > 2 ? std::max(1, std::atoi(argv[2])) : 9;
  if (world.rank() == 0) {
    std::printf("%d ranks on %d node(s), fp32, median and best of %d alternating runs, ms\n\n",
                world.size(),
                session.topology().num_nodes,
                repeats);
    std::printf(
        "| op             |  MiB | ours med | ours min | GB/s   |  MPI med |  MPI min | MPI / ours "
        "|\n");
    std::printf("|---|---|---|---|---|---|---|---|\n");
  }
  for (int64_t mib = 1; mib <= max_mib; mib *= 4) {
    const int64_t numel = (mib << 20) / 4 / world.size() * world.size();
    at::Tensor whole = at::zeros({numel});
    at::Tensor part = at::zeros({numel / world.size()});
    for (const Race& race : races(world, whole, part)) {
      report(world, race, mib << 20, repeats);
    }
  }
  return 0;
}
