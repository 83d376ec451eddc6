// SPDX-License-Identifier: Apache-2.0
// kamerton-coordinator: the server of a federation. Links neither libtorch nor MPI. What it is to
// do stands in one YAML file, which `kamerton federate coordinator` writes from a run's file.
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <string>
#include <thread>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/config/load.h"
#include "kamerton/core/clock.h"
#include "kamerton/core/error.h"
#include "kamerton/core/log.h"
#include "kamerton/federation/coordinator.h"
#include "kamerton/federation/fault_point.h"
#include "kamerton/privacy/audit_log.h"
#include "kamerton/privacy/certificate.h"
#include "kamerton/storage/filesystem.h"
#include "kamerton/transport/coordinator_file.h"
#include "kamerton/transport/gate.h"
#include "kamerton/transport/server.h"

namespace kamerton::coordinator {
namespace {

volatile std::sig_atomic_t stop_asked = 0;

/// The coordinator's account of the run, for auditors.
class Account {
 public:
  explicit Account(const transport::CoordinatorFile& file)
      : log_(std::filesystem::path(file.folder) / "audit.jsonl",
             privacy::read_key_file(transport::Identity{file.identity}.key()),
             "coordinator of " + file.run) {}

  void on_event(const core::Json& event) {
    const std::string kind = event["event"].get<std::string>();
    if (kind == "join" || kind == "leave") {
      append(kind == "join" ? privacy::audit::kJoin : "leave", event);
    } else if (kind == "commit") {
      core::Json detail = {{"round", event["round"]}, {"model", event["digest"]}};
      if (event.contains("epsilon_after")) {
        detail["epsilon_after"] = event["epsilon_after"];
      }
      append(privacy::audit::kRound, detail);
    } else if (kind == "skip" || kind == "abort" || kind == "stop") {
      append(privacy::audit::kAbort, event);
    }
  }
  std::string head() {
    const std::lock_guard lock(mutex_);
    return privacy::head_text(log_.head());
  }
  void on_head(const std::string& site, const std::string& head) {
    append(privacy::audit::kHeadSeen, privacy::head_seen(site, head));
  }
  void on_refusal(const std::string& site, const std::string& what) {
    append(privacy::audit::kRefusal, {{"site", site}, {"what", what}});
  }

 private:
  void append(std::string_view event, const core::Json& detail) {
    const std::lock_guard lock(mutex_);
    log_.append(event, detail);
  }
  std::mutex mutex_;
  privacy::AuditLog log_;
};

/// Drives rounds until the run has stopped and its sites had time to hear of it, or a signal came.
int serve(const transport::CoordinatorFile& file,
          federation::Coordinator& core,
          const core::Clock& clock,
          Account& account) {
  transport::Server server(
      core,
      {.listen = file.listen,
       .identity = {file.identity},
       .admit = transport::admit_sites(file.authority),
       .max_threads = static_cast<int>(file.max_threads),
       .on_refusal = [&](const std::string& site,
                         const std::string& what) { account.on_refusal(site, what); },
       .audit_head = [&] { return account.head(); },
       .on_head = [&](const std::string& site,
                      const std::string& head) { account.on_head(site, head); }});
  storage::write_file_atomic(storage::posix_filesystem(),
                             std::filesystem::path(file.folder) / "port",
                             fmt::format("{}\n", server.port()));
  core::log_info(fmt::format("run {} listens on port {}", file.run, server.port()));
  double stopped_at = -1;
  while (stop_asked == 0) {
    if (!core.tick()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    if (core.stopped()) {
      stopped_at = stopped_at < 0 ? clock.now_s() : stopped_at;
      if (clock.now_s() - stopped_at > file.linger_s) {
        break;
      }
    }
  }
  server.shutdown(2);
  return core.stopped() ? 0 : core::exit_code(core::ErrorKind::Preempted);
}

/// Sites would refuse a server that shows another member's certificate, one call after the other.
void check_role(const transport::CoordinatorFile& file) {
  const auto read = [](const std::filesystem::path& path) {
    return storage::posix_filesystem().read_file(path, 1 << 16);
  };
  const transport::Identity identity{file.identity};
  identity.check();
  const auto now = std::chrono::duration_cast<std::chrono::seconds>(
                       std::chrono::system_clock::now().time_since_epoch())
                       .count();
  const privacy::CertificateInfo info =
      privacy::verify_certificate(read(identity.certificate()),
                                  read(std::filesystem::path(file.authority) / "authority.pem"),
                                  now);
  if (info.role != privacy::Role::Coordinator) {
    throw core::Error(
        core::ErrorKind::Permission,
        {.where = "coordinator",
         .what = "this identity is not a coordinator's",
         .got = fmt::format("{} '{}'", privacy::name_of(info.role), info.name),
         .allowed = "the one that federate init has made, or an invited coordinator's"});
  }
}

int run(const std::string& path) {
  transport::CoordinatorFile file;
  config::Document::from_file(path).fill(file);
  check_role(file);
  const core::SteadyClock clock;
  storage::posix_filesystem().make_directories(file.folder);
  Account account(file);
  federation::Coordinator core(
      {.folder = file.folder,
       .run = file.run,
       .digest = file.digest,
       .config = file.federation,
       .lora = file.lora,
       .seed = static_cast<uint64_t>(file.seed),
       .member = transport::members_of(file.authority),
       .on_event = [&](const core::Json& event) { account.on_event(event); }},
      clock);
  struct sigaction action = {};
  action.sa_handler = [](int) { stop_asked = 1; };
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  return serve(file, core, clock, account);
}

}  // namespace
}  // namespace kamerton::coordinator

int main(int argc, char** argv) {
  using namespace kamerton;
  ::setenv("GRPC_VERBOSITY", "NONE", 0);  // what goes wrong is said once, by us
  if (argc == 2 && std::string(argv[1]) == "--fault-points") {
    for (const std::string_view name : federation::fault_points()) {
      std::printf("%.*s\n", static_cast<int>(name.size()), name.data());
    }
    return 0;
  }
  if (argc != 2 || argv[1][0] == '-') {
    std::fputs(
        "usage: kamerton-coordinator FILE.yaml | --fault-points\n"
        "FILE.yaml is written by: kamerton federate coordinator RUN.yaml\n",
        stderr);
    return core::exit_code(core::ErrorKind::Config);
  }
  try {
    return coordinator::run(argv[1]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "kamerton-coordinator: %s\n", error.what());
    return core::exit_code(error);
  }
}
