// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mpi.h>

#include "kamerton/comm/session.h"

namespace kamerton::comm {

/// Collective over `world`; `node` gets the communicator of this node's ranks.
Topology find_topology(MPI_Comm world, MPI_Comm& node);

}  // namespace kamerton::comm
