// SPDX-License-Identifier: Apache-2.0
// A coordinator under load: many sites with small updates over mutual TLS on loopback. Prints
// seconds and memory a round.
//   federation_bench SITES ELEMENTS ROUNDS
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/clock.h"
#include "kamerton/core/log.h"
#include "kamerton/federation/coordinator.h"
#include "kamerton/federation/vector_file.h"
#include "kamerton/privacy/authority.h"
#include "kamerton/storage/digest.h"
#include "kamerton/storage/filesystem.h"
#include "kamerton/transport/client.h"
#include "kamerton/transport/gate.h"
#include "kamerton/transport/server.h"

namespace {

namespace fs = std::filesystem;
using namespace kamerton;

constexpr int kThreads = 8;

int64_t now() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

/// VmRSS of this process, MiB.
double resident() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmRSS:")) {
      return std::atof(line.c_str() + 6) / 1024;
    }
  }
  return 0;
}

transport::Identity make_identity(privacy::Authority& authority,
                                  const fs::path& folder,
                                  const std::string& name,
                                  privacy::Role role) {
  transport::Identity identity{folder / name};
  fs::create_directories(identity.folder);
  const privacy::SigningKey key = privacy::make_key_file(identity.key());
  std::ofstream(identity.certificate())
      << authority.issue(privacy::make_request(key, name, role, authority.federation()), now(), 30);
  std::ofstream(identity.authority()) << authority.certificate();
  return identity;
}

struct Site {
  std::string name;
  std::unique_ptr<transport::Client> client;
  fs::path update;
};

/// One site's work of a round; false when there is none now.
bool work(Site& site, int64_t elements) {
  const federation::Task task = site.client->task();
  if (task.kind != federation::Task::Kind::Train) {
    return false;
  }
  fs::remove(site.update);
  auto file = federation::RangeFile::open_or_create(site.update, 4 * elements);
  const std::vector<float> values(static_cast<size_t>(elements),
                                  static_cast<float>(task.round + 1) * 1e-3F);
  file.write(0, std::span<const float>(values));
  site.client->upload(task.round, 0, 1, file);
  federation::Submission submission;
  submission.site = site.name;
  submission.round = task.round;
  submission.digest = federation::file_digest(site.update);
  submission.bytes = 4 * elements;
  submission.targets = 100;
  site.client->submit("bench", submission, "");
  return true;
}

void drive(std::vector<Site>& sites,
           int64_t elements,
           size_t first,
           const federation::Coordinator& core) {
  while (!core.stopped()) {
    bool any = false;
    for (size_t i = first; i < sites.size() && !core.stopped(); i += kThreads) {
      any = work(sites[i], elements) || any;
    }
    if (!any) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
  }
}

/// All sites with certificates of their own, joined.
std::vector<Site> connect(privacy::Authority& authority,
                          const fs::path& folder,
                          int port,
                          int64_t count,
                          int64_t elements) {
  const std::string layout = federation::Layout({{"w", {elements}}}, 1).to_json().dump();
  std::vector<Site> sites;
  for (int64_t i = 0; i < count; ++i) {
    const std::string name = fmt::format("site-{:04d}", i);
    const auto identity = make_identity(authority, folder, name, privacy::Role::Site);
    sites.push_back({name,
                     std::make_unique<transport::Client>(transport::ClientOptions{
                         .address = fmt::format("127.0.0.1:{}", port),
                         .identity = identity,
                         .admit = transport::admit_coordinator(identity.authority())}),
                     identity.folder / "update"});
    sites.back().client->join({"", "bench", "d", layout});
  }
  return sites;
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t count = argc > 1 ? std::atoll(argv[1]) : 100;
  const int64_t elements = argc > 2 ? std::atoll(argv[2]) : 6144;
  const int64_t rounds = argc > 3 ? std::atoll(argv[3]) : 3;
  core::configure_log(0, 1, core::LogLevel::Warning);
  const fs::path folder = fs::temp_directory_path() / "kamerton-federation-bench";
  fs::remove_all(folder);
  fs::create_directories(folder);
  privacy::Authority authority = privacy::Authority::create(folder / "authority", "bench", now());
  const auto own = make_identity(authority, folder, "coordinator", privacy::Role::Coordinator);
  federation::FederationConfig config;
  config.rounds = rounds;
  config.eval_every = 0;
  config.cohort.start_sites = count;
  const core::SteadyClock clock;
  federation::Coordinator core(
      {.folder = folder / "run", .run = "bench", .digest = "d", .config = config}, clock);
  transport::Server server(core,
                           {.listen = "127.0.0.1:0",
                            .identity = own,
                            .admit = transport::admit_sites(folder / "authority"),
                            .max_threads = 64});
  const double empty = resident();
  double start = clock.now_s();
  std::vector<Site> sites = connect(authority, folder, server.port(), count, elements);
  std::printf("%lld sites connected in %.1f s, %.1f MiB (of both ends, in one process)\n",
              static_cast<long long>(count),
              clock.now_s() - start,
              resident() - empty);
  start = clock.now_s();
  std::vector<std::thread> threads;
  for (size_t i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] { drive(sites, elements, i, core); });
  }
  while (!core.stopped()) {
    if (!core.tick()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  const double seconds = (clock.now_s() - start) / static_cast<double>(rounds);
  std::printf("%.2f s a round, %.2f ms a site, %.1f MiB above the empty server\n",
              seconds,
              1000 * seconds / static_cast<double>(count),
              resident() - empty);
  sites.clear();
  server.shutdown(1);
  fs::remove_all(folder);
  return 0;
}
