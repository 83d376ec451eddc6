// SPDX-License-Identifier: Apache-2.0
// The one way out for a job that failed: said once, written down, all ranks ended.
#pragma once

#include <filesystem>
#include <string>

#include "kamerton/comm/session.h"

#include "node_table.h"

namespace kamerton::comm {

struct Ending {
  int code = 70;
  std::string text;
  int64_t step = -1;  ///< -1: before the first
};

/// Prints the text unless another rank of the node has printed the same (rank 0 of the node at
/// once, the others after a short wait), writes folder/error.rank-K.json, calls MPI_Abort(code).
/// Not collective.
[[noreturn]] void end_job(const Topology& topology,
                          const NodeTable& table,
                          const std::filesystem::path& folder,
                          const Ending& ending) noexcept;

/// "config", "data", ... of an exit code, as error.rank-K.json names it.
std::string kind_name(int code);

}  // namespace kamerton::comm
