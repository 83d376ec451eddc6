// SPDX-License-Identifier: Apache-2.0
// Threads of a rank, chosen so that the ranks of a node use its cores once.
#pragma once

#include <string>

#include "kamerton/comm/session.h"

namespace kamerton::mesh {

/// What the user asked for (OMP_NUM_THREADS), else this process's cores shared with the ranks that
/// have the same ones. At least 1.
int threads_of_rank(const comm::Topology& topology);

/// Sets libtorch's threads for this process; returns what to print ("2 a rank (4 cores, 2 ranks on
/// the node)").
std::string choose_threads(const comm::Topology& topology);

}  // namespace kamerton::mesh
