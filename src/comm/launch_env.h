// SPDX-License-Identifier: Apache-2.0
// What launchers tell a process through its environment.
#pragma once

#include <functional>
#include <optional>
#include <string>

namespace kamerton::comm {

/// getenv, or a table in a test.
using Environment = std::function<const char*(const char*)>;

struct LaunchedSize {
  int size = 1;
  std::string variable;  ///< who says so
};

/// How many ranks the launcher started, when it says so; innermost launcher first (mpirun inside
/// srun).
std::optional<LaunchedSize> launched_size(const Environment& environment);

/// Throws ErrorKind::Comm when the launcher started `launched` ranks and MPI sees another number:
/// each process would train alone and all would write the same files.
void check_world_size(const std::optional<LaunchedSize>& launched, int mpi_size);

/// The value of a variable that holds a positive integer, else 0.
int positive_int(const Environment& environment, const char* name);

}  // namespace kamerton::comm
