// SPDX-License-Identifier: Apache-2.0
// Steps with a collective each, and what can go wrong in them: victim FOLDER DEADLINE_S STEPS
// [ERROR]
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include <ATen/ATen.h>

#include "kamerton/comm/session.h"
#include "kamerton/core/error.h"

using namespace kamerton;

namespace {

/// "data": all ranks find the same error; "data1": rank 1 alone; "segv1": rank 1 crashes; "throw1":
/// another exception.
void go_wrong(const std::string& error, int rank) {
  if (error == "data" || (error == "data1" && rank == 1)) {
    throw core::Error(core::ErrorKind::Data,
                      {.where = "victim", .what = "line 3 of the file is broken"});
  }
  if (error == "throw1" && rank == 1) {
    throw std::runtime_error("something unforeseen");
  }
  if (error == "segv1" && rank == 1) {
    std::raise(SIGSEGV);
  }
}

void run(comm::Session& session, char** argv) {
  const std::string folder = argv[1];
  const int64_t steps = std::atoll(argv[3]);
  const std::string error = argv[4] == nullptr ? "" : argv[4];
  const comm::Group& world = session.world();
  session.set_report_folder(folder);
  session.watchdog().start(folder, std::atof(argv[2]));
  session.watchdog().note_phase("train");
  session.watchdog().note_checkpoint("step-5");
  at::Tensor tensor = at::ones({300000});
  for (int64_t step = 1; step <= steps; ++step) {
    session.watchdog().note_step(step);
    comm::fault_at_step(session.fault(), world.rank(), step);
    if (step == 7) {
      go_wrong(error, world.rank());
    }
    world.all_reduce(tensor);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  std::printf("rank %d done\n", world.rank());
}

}  // namespace

int main(int argc, char** argv) {
  try {
    comm::Session session(argc, argv);
    try {
      run(session, argv);
      return 0;
    } catch (const std::exception& error) {
      session.abort(error);
    }
  } catch (const core::Error& error) {  // the session itself could not be made
    std::fprintf(stderr, "error: %s\n", error.what());
    return core::exit_code(error);
  }
}
