// SPDX-License-Identifier: Apache-2.0
// kamerton federate coordinator: from a run's file to kamerton-coordinator, which does the rest.
#include <cerrno>
#include <climits>
#include <cstring>
#include <filesystem>

#include <unistd.h>

#include "kamerton/config/load.h"
#include "kamerton/core/error.h"
#include "kamerton/storage/filesystem.h"
#include "kamerton/transport/coordinator_file.h"

#include "command.h"
#include "run_file.h"
#include "site_work.h"

namespace kamerton::cli {
namespace {

namespace fs = std::filesystem;

/// The program beside this one.
fs::path coordinator_program() {
  char buffer[PATH_MAX] = {};
  const ssize_t length = ::readlink("/proc/self/exe", buffer, sizeof(buffer) - 1);
  return fs::path(std::string(buffer, length > 0 ? static_cast<size_t>(length) : 0)).parent_path() /
         "kamerton-coordinator";
}

int run_coordinator(const po::variables_map& arguments, comm::Session*) {
  static const Command self = federate_coordinator_command();
  const RunConfig config = federated_run(arguments, self);
  const fs::path authority = required(arguments, "authority", self);
  transport::CoordinatorFile file;
  file.run = config.name;
  file.digest = common_digest(config);
  file.seed = config.train.seed;
  file.lora = config.tuning.method == "lora";
  file.folder = (config.folder() / "coordinator").string();
  file.listen = value_or<std::string>(arguments, "listen", "0.0.0.0:7443");
  file.identity =
      value_or<std::string>(arguments, "identity", (authority / "coordinator").string());
  file.authority = authority.string();
  file.linger_s = value_or<double>(arguments, "linger", 30.0);
  file.federation = config.federation;
  storage::posix_filesystem().make_directories(file.folder);
  const fs::path path = fs::path(file.folder) / "coordinator.yaml";
  storage::write_file_atomic(storage::posix_filesystem(), path, config::dump(file));
  const fs::path program = coordinator_program();
  ::execl(program.c_str(), program.c_str(), path.c_str(), nullptr);
  throw core::Error(core::ErrorKind::Output,
                    {.where = "cli.federate",
                     .what = "cannot start " + program.string(),
                     .got = std::strerror(errno),
                     .hint = "it is built beside kamerton"});
}

}  // namespace

Command federate_coordinator_command() {
  return {.name = "federate coordinator",
          .summary = "serve a federated run to sites across a network",
          .usage =
              "kamerton federate coordinator RUN.yaml --authority DIR [--listen ADDRESS:PORT] "
              "[--identity DIR]",
          .description =
              "Checks the run's file, writes runs/NAME/coordinator/coordinator.yaml and becomes "
              "kamerton-coordinator, which links neither\nlibtorch nor MPI. Started again after a "
              "crash it goes on where it was. SIGTERM ends it with code 75.\n\nExample:\n"
              "  kamerton federate coordinator configs/recipes/federated.yaml --authority "
              "federation/authority --listen 0.0.0.0:7443",
          .needs_ranks = false,
          .add_options =
              [](po::options_description& options, po::positional_options_description& positional) {
                add_run_file(options, positional);
                options.add_options()("authority",
                                      po::value<std::string>(),
                                      "the authority's folder (federate init)")(
                    "identity",
                    po::value<std::string>(),
                    "the coordinator's key and certificate; default: AUTHORITY/coordinator")(
                    "listen", po::value<std::string>(), "address and port; default 0.0.0.0:7443")(
                    "linger",
                    po::value<double>(),
                    "seconds that it stays after the last round for sites that still ask; 30");
              },
          .run = run_coordinator};
}

}  // namespace kamerton::cli
