// SPDX-License-Identifier: Apache-2.0
// The MPI environment of a process, from start to end.
#pragma once

#include <exception>
#include <filesystem>
#include <string>

#include "kamerton/comm/fault.h"
#include "kamerton/comm/group.h"
#include "kamerton/comm/watchdog.h"

namespace kamerton::comm {

/// How this process was started and what the node offers.
struct Topology {
  int world_size = 1;
  int rank = 0;
  int local_rank = 0;  ///< rank within the node
  int local_size = 1;  ///< ranks on this node (MPI shared-memory split)
  int node = 0;        ///< index of this node, ordered by lowest rank
  int num_nodes = 1;
  std::string host;
  int cores = 1;                ///< cores that this process may use (affinity mask)
  int cores_per_node = 1;       ///< cores that the ranks of this node may use together
  int ranks_sharing_cores = 1;  ///< ranks of this node with exactly the same cores (1: bound apart)
  int requested_threads = 0;    ///< OMP_NUM_THREADS of the user; 0: not set
};

/// RAII over MPI_Init_thread. Also works without a launcher (world of one).
/// On errors: abort() and nothing else; the destructor finalizes MPI and is reached only on success
/// (faults.md §2: an exception that travels into MPI_Finalize hangs the job).
class Session {
 public:
  /// Throws ErrorKind::Comm when MPI cannot start, when the launcher's size and MPI's disagree (a
  /// launcher without PMIx gives N worlds of one), or when the thread level is below SERIALIZED.
  Session(int& argc, char**& argv);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  const Group& world() const;
  const Topology& topology() const;
  /// Not started: call start() once the run's folder is known.
  Watchdog watchdog() const;
  /// KAMERTON_FAULT, for fault_at_step().
  const Fault& fault() const;

  /// Where error.rank-K.json goes when abort() is called (a run's folder); unset: no file.
  void set_report_folder(const std::filesystem::path& folder);

  /// Reports the error once (a config or data error that all ranks found is printed by one of
  /// them), writes error.rank-K.json into the report folder, ends all ranks with the error's exit
  /// code. Never returns.
  [[noreturn]] void abort(const std::exception& error) noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace kamerton::comm
