// SPDX-License-Identifier: Apache-2.0
#include "kamerton/comm/session.h"

#include <cstdlib>
#include <mutex>

#include <fmt/format.h>
#include <mpi.h>

#include "kamerton/core/error.h"
#include "kamerton/core/signal_thread.h"

#include "job_end.h"
#include "launch_env.h"
#include "monitor.h"
#include "mpi_check.h"
#include "mpi_group.h"
#include "topology.h"

namespace kamerton::comm {
namespace {

const char* process_environment(const char* name) {
  return std::getenv(name);
}

void start_mpi(int& argc, char**& argv) {
  const std::optional<LaunchedSize> launched = launched_size(process_environment);
  int provided = MPI_THREAD_SINGLE;
  mpi_check(MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &provided));
  core::start_signal_thread();  // after MPI's helpers, which need signals, before all that compute
  mpi_check(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
  if (provided < MPI_THREAD_SERIALIZED) {
    throw core::Error(core::ErrorKind::Comm,
                      {.where = "comm.session",
                       .what = "this MPI library does not allow calls from several threads",
                       .got = fmt::format("thread level {}", provided),
                       .allowed = "MPI_THREAD_SERIALIZED or more"});
  }
  int size = 1;
  mpi_check(MPI_Comm_size(MPI_COMM_WORLD, &size));
  check_world_size(launched, size);
}

MpiOptions options_for(const Topology& topology) {
  MpiOptions options;
  options.oversubscribed = topology.local_size > topology.cores_per_node;
  const char* path = process_environment("KAMERTON_COMM_PATH");
  const std::string choice = path == nullptr ? "auto" : path;
  if (choice != "auto" && choice != "mpi") {
    throw core::Error(core::ErrorKind::Config,
                      {.where = "comm.session",
                       .what = "KAMERTON_COMM_PATH names no way to exchange data",
                       .got = "'" + choice + "'",
                       .allowed = "auto, mpi"});
  }
  options.shared_memory = choice == "auto";
  return options;
}

}  // namespace

struct Session::State {
  Topology topology;
  std::shared_ptr<NodeTable> table;
  std::shared_ptr<Monitor> monitor;
  Group world;
  Fault fault;
  std::mutex folder_mutex;  ///< the monitor's thread reads the folder too
  std::filesystem::path folder;

  std::filesystem::path report_folder() {
    const std::lock_guard lock(folder_mutex);
    return folder;
  }
  void end(int code, const std::string& text) noexcept {
    end_job(topology,
            *table,
            report_folder(),
            {.code = code, .text = text, .step = table->own().step.load()});
  }
};

Session::Session(int& argc, char**& argv) {
  start_mpi(argc, argv);
  state_ = std::make_unique<State>();
  State& state = *state_;
  MPI_Comm world = MPI_COMM_NULL;
  mpi_check(MPI_Comm_dup(MPI_COMM_WORLD, &world));  // MPI calls of others cannot meet ours
  MPI_Comm node = MPI_COMM_NULL;
  state.topology = find_topology(world, node);
  state.topology.requested_threads = positive_int(process_environment, "OMP_NUM_THREADS");
  state.table = std::make_shared<NodeTable>(node, state.topology.rank);
  mpi_check(MPI_Comm_free(&node));
  state.monitor =
      std::make_shared<Monitor>(state.topology, state.table, [&state](const std::string& text) {
        const core::Complaint complaint{.where = "comm.watchdog", .what = text};
        state.end(core::exit_code(core::ErrorKind::Comm), core::to_text(complaint));
      });
  const char* fault = process_environment("KAMERTON_FAULT");
  state.fault = parse_fault(fault == nullptr ? "" : fault);
  state.world =
      Group(make_mpi_group(world, "world", 1, state.monitor, options_for(state.topology)));
}

Session::~Session() {
  state_->monitor->note_phase("finished");
  state_->monitor->stop();
  MPI_Finalize();
}

const Group& Session::world() const {
  return state_->world;
}
const Topology& Session::topology() const {
  return state_->topology;
}
Watchdog Session::watchdog() const {
  return Watchdog(state_->monitor);
}
const Fault& Session::fault() const {
  return state_->fault;
}

void Session::set_report_folder(const std::filesystem::path& folder) {
  const std::lock_guard lock(state_->folder_mutex);
  state_->folder = folder;
}

void Session::abort(const std::exception& error) noexcept {
  const auto* known = dynamic_cast<const core::Error*>(&error);
  const std::string text =
      known != nullptr ? error.what() : std::string("[internal] ") + error.what();
  end_job(state_->topology,
          *state_->table,
          state_->report_folder(),
          {.code = core::exit_code(error), .text = text, .step = state_->monitor->step()});
}

}  // namespace kamerton::comm
