// SPDX-License-Identifier: Apache-2.0
// Threads of a rank, chosen so that the ranks of a node use its cores once.
#pragma once

#include <string>

#include "kamerton/comm/session.h"

namespace kamerton::mesh {

/// OMP_NUM_THREADS when the user set it; else the cores this process may use, shared among the
/// ranks that may use them. `given`: the variable's value or null. At least 1.
int threads_of_rank(const comm::Topology& topology, const char* given);

/// Sets libtorch's threads for this process; returns what to print ("2 a rank (4 cores, 2 ranks on
/// the node)").
std::string choose_threads(const comm::Topology& topology);
/// For commands without ranks: one process, all the cores it may use.
std::string choose_threads();

}  // namespace kamerton::mesh
