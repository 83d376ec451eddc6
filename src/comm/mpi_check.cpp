// SPDX-License-Identifier: Apache-2.0
#include "mpi_check.h"

#include <string>

#include <fmt/format.h>

#include "kamerton/core/error.h"

namespace kamerton::comm {

void mpi_check(int code, const std::source_location& where) {
  if (code == MPI_SUCCESS) {
    return;
  }
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(code, text, &length);
  std::string_view file = where.file_name();
  file.remove_prefix(file.rfind('/') + 1);  // npos + 1 == 0
  throw core::Error(
      core::ErrorKind::Comm,
      {.where = "comm.mpi",
       .what = fmt::format(
           "an MPI call failed in {}:{} ({})", file, where.line(), where.function_name()),
       .got = std::string(text, static_cast<size_t>(length))});
}

}  // namespace kamerton::comm
