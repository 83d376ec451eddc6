// SPDX-License-Identifier: Apache-2.0
#include "launch_env.h"

#include <charconv>
#include <cstring>

#include <fmt/format.h>

#include "kamerton/core/error.h"

namespace kamerton::comm {

int positive_int(const Environment& environment, const char* name) {
  const char* text = environment(name);
  int value = 0;
  if (text == nullptr) {
    return 0;
  }
  const char* end = text + std::strlen(text);
  const auto [stop, error] = std::from_chars(text, end, value);
  return error == std::errc() && stop == end && value > 0 ? value : 0;
}

std::optional<LaunchedSize> launched_size(const Environment& environment) {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"}) {
    if (const int size = positive_int(environment, name); size > 0) {
      return LaunchedSize{size, name};
    }
  }
  // A batch script has SLURM_NTASKS too, but only a step's tasks are ranks.
  if (environment("SLURM_STEP_ID") != nullptr && environment("SLURM_PROCID") != nullptr) {
    for (const char* name : {"SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"}) {
      if (const int size = positive_int(environment, name); size > 0) {
        return LaunchedSize{size, name};
      }
    }
  }
  return std::nullopt;
}

void check_world_size(const std::optional<LaunchedSize>& launched, int mpi_size) {
  if (launched && launched->size != mpi_size) {
    throw core::Error(
        core::ErrorKind::Comm,
        {.where = "comm.session",
         .what = "the launcher and MPI disagree about the number of ranks",
         .got =
             fmt::format("{}={}, MPI world size {}", launched->variable, launched->size, mpi_size),
         .allowed = "equal numbers",
         .hint =
             "srun --mpi=pmix, or the mpirun of the MPI library that this program is linked with"});
  }
}

}  // namespace kamerton::comm
