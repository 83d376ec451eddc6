// SPDX-License-Identifier: Apache-2.0
// The program: find the command, start the ranks when it needs them, run it, end every rank on an
// error.
#include "kamerton/cli/program.h"
#include "kamerton/comm/session.h"

int main(int argc, char** argv) {
  using namespace kamerton;
  const cli::Program program =
      cli::parse(argc, argv);  // bad arguments become a program that explains and returns 64
  try {
    const auto gpu = cli::prepare_process();
    if (!program.needs_ranks()) {
      return program.run_alone();
    }
    comm::Session session(argc, argv);
    try {
      return program.run(session);
    } catch (const std::exception& error) {
      session.abort(error);  // inside the session's scope: Finalize never meets an exception
    }
  } catch (const std::exception& error) {
    return cli::report(error);  // what comes before the ranks could not start
  }
}
