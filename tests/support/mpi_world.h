// SPDX-License-Identifier: Apache-2.0
// The job of a test program that runs under mpirun.
#pragma once

#include "kamerton/comm/session.h"

namespace kamerton::testing_support {

/// The session that mpi_main.cpp started.
comm::Session& mpi_session();
/// All ranks.
const comm::Group& mpi_world();

}  // namespace kamerton::testing_support
