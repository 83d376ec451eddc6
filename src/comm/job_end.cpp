// SPDX-License-Identifier: Apache-2.0
#include "job_end.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <thread>

#include <fmt/format.h>
#include <mpi.h>
#include <nlohmann/json.hpp>
#include <signal.h>
#include <unistd.h>

#include "group_impl.h"

namespace kamerton::comm {
namespace {

using namespace std::chrono_literals;

/// True when this rank is the one to print. Waits a little for a lower rank that found the same.
bool should_print(const Topology& topology, const NodeTable& table, uint64_t digest) {
  const auto give_up = std::chrono::steady_clock::now() +
                       (topology.rank == 0 ? 0ms : 300ms + 20ms * topology.local_rank);
  while (!table.is_reported(digest)) {
    if (std::chrono::steady_clock::now() >= give_up) {
      table.own().reported.store(digest, std::memory_order_release);
      return true;
    }
    std::this_thread::sleep_for(5ms);
  }
  return false;
}

void print(const Topology& topology, const std::string& text) {
  const std::string clear =
      isatty(STDERR_FILENO) != 0 ? "\r\x1b[K" : "";  // a progress bar may stand there
  const std::string who =
      topology.world_size > 1 ? fmt::format(" (rank {} on {})", topology.rank, topology.host) : "";
  const std::string line = fmt::format("{}error{}: {}\n", clear, who, text);
  std::fflush(nullptr);
  if (write(STDERR_FILENO, line.data(), line.size()) < 0) {
    return;  // nobody listens; error.rank-K.json tells
  }
}

void write_report(const Topology& topology,
                  const std::filesystem::path& folder,
                  const Ending& ending) {
  if (folder.empty()) {
    return;
  }
  const nlohmann::ordered_json report = {
      {"rank", topology.rank},
      {"world_size", topology.world_size},
      {"host", topology.host},
      {"pid", getpid()},
      {"kind", kind_name(ending.code)},
      {"exit_code", ending.code},
      {"text", ending.text},
      {"step", ending.step},
      {"time",
       std::chrono::duration_cast<std::chrono::seconds>(
           std::chrono::system_clock::now().time_since_epoch())
           .count()},
  };
  std::ofstream file(folder / fmt::format("error.rank-{}.json", topology.rank), std::ios::trunc);
  file << report.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) << '\n';
}

}  // namespace

std::string kind_name(int code) {
  static const char* const kNames[] = {"config",
                                       "data",
                                       "",
                                       "",
                                       "",
                                       "",
                                       "internal",
                                       "",
                                       "",
                                       "output",
                                       "io",
                                       "preempted",
                                       "comm",
                                       "permission",
                                       "numeric",
                                       "no_progress"};
  const bool known = code >= 64 && code < 80 && kNames[code - 64][0] != '\0';
  return known ? kNames[code - 64] : fmt::format("code {}", code);
}

void end_job(const Topology& topology,
             const NodeTable& table,
             const std::filesystem::path& folder,
             const Ending& ending) noexcept {
  signal(SIGALRM, SIG_DFL);
  alarm(20);  // should MPI_Abort hang, this process dies and the launcher ends the rest
  try {
    write_report(topology, folder, ending);
    if (should_print(topology, table, signature(ending.text, ending.code))) {
      print(topology, ending.text);
    }
  } catch (const std::exception&) {
    // Out of memory while reporting: the exit code still tells the kind.
  }
  std::fflush(nullptr);
  if (topology.world_size > 1) {
    MPI_Abort(MPI_COMM_WORLD, ending.code);
  }
  std::_Exit(ending.code);
}

}  // namespace kamerton::comm
