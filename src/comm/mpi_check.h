// SPDX-License-Identifier: Apache-2.0
// Every return code of MPI passes through here.
#pragma once

#include <source_location>

#include <mpi.h>

namespace kamerton::comm {

/// Throws ErrorKind::Comm with MPI's text and the place of the call unless `code` is MPI_SUCCESS.
void mpi_check(int code, const std::source_location& where = std::source_location::current());

}  // namespace kamerton::comm
