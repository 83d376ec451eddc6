// SPDX-License-Identifier: Apache-2.0
#include "kamerton/federation/coordinator.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <thread>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <sys/wait.h>
#include <unistd.h>

#include "kamerton/core/log.h"
#include "kamerton/core/random.h"
#include "kamerton/federation/codec.h"
#include "kamerton/federation/fault_point.h"
#include "kamerton/federation/site_noise.h"
#include "kamerton/federation/vector_file.h"
#include "kamerton/storage/digest.h"

#include "support/expect_error.h"
#include "support/manual_clock.h"
#include "support/temporary_folder.h"

namespace kamerton::federation {
namespace {

constexpr int64_t kSize = 3000;
const std::vector<std::string> kSites = {"a", "b", "c"};

Layout layout_of(int64_t vectors) {
  return Layout({{"w", {50, 40}}, {"v", {1000}}}, vectors);
}

FederationConfig small_config(const std::string& method) {
  FederationConfig config;
  config.method = method;
  config.rounds = 3;
  config.eval_every = 2;
  config.cohort.start_sites = 3;
  config.cohort.min_sites = 2;
  config.cohort.deadline_s = 50;
  config.weights = "uniform";
  return config;
}

/// A site without a model: its update is a pure function of (site, round, model).
class FakeSite {
 public:
  FakeSite(Coordinator& coordinator, std::string name)
      : core_(coordinator), name_(std::move(name)) {}

  void join() {
    core_.join(
        {name_, "run", "digest", layout_of(exchanged_vectors(core_.config())).to_json().dump()});
  }
  std::vector<std::byte> update(const Task& task) const {
    const int64_t total = kSize * exchanged_vectors(core_.config());
    std::vector<float> model(static_cast<size_t>(total), 0.0F);
    if (!task.models.empty()) {
      RangeFile::open(core_.model_path(task.models.back().round), 4 * total)
          .read(0, std::span(model));
    }
    const core::RandomStream random(3, "test." + name_, static_cast<uint64_t>(task.round));
    for (size_t i = 0; i < model.size(); ++i) {
      model[i] = static_cast<float>(0.1 * random.normal(i)) - 0.01F * model[i];
    }
    const auto codec = make_codec(core_.config(), total, 1);
    std::vector<std::byte> bytes(static_cast<size_t>(encoded_size(*codec, total)));
    for (int64_t at = 0; at < total; at += kBlock) {
      const int64_t count = std::min(kBlock, total - at);
      codec->encode(
          std::span(model).subspan(static_cast<size_t>(at), static_cast<size_t>(count)),
          at / kBlock,
          std::span(bytes).subspan(static_cast<size_t>(encoded_offset(*codec, at / kBlock)),
                                   static_cast<size_t>(codec->block_bytes(count))));
    }
    return bytes;
  }
  Submission submission(const Task& task, std::span<const std::byte> bytes) const {
    Submission result;
    result.site = name_;
    result.round = task.round;
    result.eval_targets = task.measure ? 10 : 0;
    result.eval_nll = task.measure ? 20 : 0;
    if (task.kind == Task::Kind::Train) {
      result.digest = storage::to_hex(storage::digest_of(bytes));
      result.bytes = static_cast<int64_t>(bytes.size());
      result.targets = 100 + static_cast<int64_t>(name_[0]);
    }
    return result;
  }
  /// Sends in two shards, in pieces of 999 bytes, from where the coordinator has it.
  void upload(const Task& task, std::span<const std::byte> bytes) {
    for (int64_t shard = 0; shard < 2; ++shard) {
      const auto [begin, end] =
          Coordinator::shard_range(static_cast<int64_t>(bytes.size()), shard, 2);
      int64_t offset = core_.received(name_, task.round, shard, 2);
      while (begin + offset < end) {
        const int64_t count = std::min<int64_t>(999, end - begin - offset);
        offset = core_.receive(
            name_,
            task.round,
            shard,
            2,
            offset,
            bytes.subspan(static_cast<size_t>(begin + offset), static_cast<size_t>(count)));
      }
    }
  }
  /// One step of work; false when there was none.
  bool work() {
    const Task task = core_.task(name_);
    if (task.kind != Task::Kind::Train && task.kind != Task::Kind::Evaluate) {
      return false;
    }
    std::vector<std::byte> bytes;
    if (task.kind == Task::Kind::Train) {
      bytes = update(task);
      upload(task, bytes);
    }
    const Receipt receipt = core_.submit(submission(task, bytes));
    EXPECT_FALSE(receipt.send_again);
    return true;
  }

 private:
  Coordinator& core_;
  std::string name_;
};

CoordinatorOptions options_in(const std::filesystem::path& folder, const FederationConfig& config) {
  return {.folder = folder, .run = "run", .digest = "digest", .config = config, .lora = false};
}

/// Runs or resumes to the end; sites answer in an order that `turn` rotates.
void run_all(const std::filesystem::path& folder, const FederationConfig& config, size_t turn) {
  core::configure_log(0, 1, core::LogLevel::Error);
  const support::ManualClock clock;
  Coordinator coordinator(options_in(folder, config), clock);
  std::vector<FakeSite> sites;
  for (const std::string& name : kSites) {
    sites.emplace_back(coordinator, name);
    sites.back().join();
  }
  for (int guard = 0; guard < 200 && !coordinator.stopped(); ++guard) {
    while (coordinator.tick()) {
    }
    for (size_t i = 0; i < sites.size(); ++i) {
      sites[(i + turn) % sites.size()].work();
    }
  }
  EXPECT_TRUE(coordinator.stopped());
}

std::string final_model(const std::filesystem::path& folder) {
  return test::read_text(folder / "models" / "round-000003.f32");
}

std::string reference_model(const FederationConfig& config) {
  const test::TemporaryFolder folder;
  run_all(folder.path(), config, 0);
  const std::string model = final_model(folder.path());
  EXPECT_GT(model.size(), 0U);
  return model;
}

TEST(Coordinator, SameBitsWhateverTheOrderOfArrival) {
  for (const char* method : {"fedavg", "fedadam", "fedyogi", "diloco", "scaffold"}) {
    const FederationConfig config = small_config(method);
    const std::string want = reference_model(config);
    for (const size_t turn : {1, 2}) {
      const test::TemporaryFolder folder;
      run_all(folder.path(), config, turn);
      EXPECT_EQ(final_model(folder.path()), want) << method;
    }
  }
}

TEST(Coordinator, AveragingIsTheFormula) {
  FederationConfig config = small_config("fedavg");
  config.rounds = 1;
  const test::TemporaryFolder folder;
  run_all(folder.path(), config, 0);
  std::vector<float> model(kSize);
  RangeFile::open(folder / "models/round-000001.f32", 4 * kSize).read(0, std::span(model));
  for (size_t i = 0; i < model.size(); ++i) {
    double sum = 0;
    for (const std::string& site : kSites) {
      sum += static_cast<float>(0.1 * core::RandomStream(3, "test." + site, 0).normal(i));
    }
    ASSERT_NEAR(model[i], sum / 3, 1e-7);
  }
}

/// In a process of its own, which may be killed at `fault`; whether it ran to its end.
bool run_in_child(const std::filesystem::path& folder,
                  const FederationConfig& config,
                  const std::string& fault) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::setenv("KAMERTON_FEDERATION_FAULT", fault.c_str(), 1);
    run_all(folder, config, 0);
    ::_exit(testing::Test::HasFailure() ? 1 : 0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) ? WEXITSTATUS(status) == 0 : WTERMSIG(status) == SIGKILL);
  return WIFEXITED(status);
}

TEST(Coordinator, KilledAtEveryFaultPointItGoesOnToTheSameBits) {
  for (const char* method : {"fedadam", "scaffold"}) {
    const FederationConfig config = small_config(method);
    const std::string want = reference_model(config);
    for (const std::string_view point : fault_points()) {
      if (!point.starts_with("coordinator.") || point.starts_with("coordinator.secure")) {
        continue;
      }
      for (int count = 1; count <= (std::string(method) == "scaffold" ? 1 : 2); ++count) {
        const test::TemporaryFolder folder;
        const std::string fault = std::string(point) + ":" + std::to_string(count);
        if (run_in_child(folder.path(), config, fault)) {
          EXPECT_GT(count, 1) << point << " was never reached";
          break;
        }
        EXPECT_TRUE(run_in_child(folder.path(), config, "none")) << fault;
        EXPECT_EQ(final_model(folder.path()), want) << method << " " << fault;
      }
    }
  }
}

TEST(Coordinator, LyingAndStrangeMessagesAreRefusedAndTheRunGoesOn) {
  const test::TemporaryFolder folder;
  const support::ManualClock clock;
  const FederationConfig config = small_config("fedavg");
  Coordinator coordinator(options_in(folder.path(), config), clock);
  const std::string layout = layout_of(1).to_json().dump();
  using core::ErrorKind;
  test::expect_error(ErrorKind::Permission, {"another run"}, [&] {
    coordinator.join({"a", "other", "digest", layout});
  });
  test::expect_error(ErrorKind::Permission, {"has not joined"}, [&] { coordinator.task("a"); });
  std::vector<FakeSite> sites;
  for (const std::string& name : kSites) {
    sites.emplace_back(coordinator, name);
    sites.back().join();
  }
  test::expect_error(ErrorKind::Permission, {"other tensors"}, [&] {
    coordinator.join({"d", "run", "digest", Layout({{"w", {7}}}, 1).to_json().dump()});
  });
  test::expect_error(ErrorKind::Data, {"not possible"}, [&] {
    coordinator.join(
        {"d", "run", "digest", R"({"vectors":1,"tensors":[{"name":"w","shape":[-3]}]})"});
  });
  while (coordinator.tick()) {
  }
  const Task task = coordinator.task("a");
  ASSERT_EQ(task.kind, Task::Kind::Train);
  std::vector<std::byte> bytes = sites[0].update(task);
  const std::span<const std::byte> all(bytes);
  test::expect_error(ErrorKind::Comm, {"do not follow"}, [&] {
    coordinator.receive("a", 0, 0, 1, 5, all.first(10));
  });
  test::expect_error(ErrorKind::Data, {"no such shard"}, [&] {
    coordinator.receive("a", 0, 3, 2, 0, all.first(10));
  });
  std::vector<std::byte> long_bytes(bytes.size() + 1);
  test::expect_error(ErrorKind::Data, {"beyond a shard's end"}, [&] {
    coordinator.receive("a", 0, 0, 1, 0, long_bytes);
  });
  test::expect_error(ErrorKind::Permission, {"awaited"}, [&] {
    coordinator.receive("a", 7, 0, 1, 0, all.first(10));
  });
  sites[0].upload(task, all);
  Submission wrong = sites[0].submission(task, all);
  wrong.digest = std::string(64, '0');
  EXPECT_TRUE(coordinator.submit(wrong).send_again);
  EXPECT_EQ(coordinator.received("a", 0, 0, 2), 0) << "the bytes are dropped";
  const float nan = std::nanf("");
  std::memcpy(bytes.data() + 40, &nan, 4);
  sites[0].upload(task, bytes);
  test::expect_error(ErrorKind::Data, {"not finite"}, [&] {
    coordinator.submit(sites[0].submission(task, bytes));
  });
  EXPECT_TRUE(coordinator.task("a").kind == Task::Kind::Train) << "not counted";
}

/// Twins of a site send different updates at once, until `over`.
void work_against_each_other(Coordinator& coordinator,
                             FakeSite& site,
                             bool altered,
                             const std::atomic<bool>& over) {
  while (!over) {
    try {
      const Task task = coordinator.task("c");
      if (task.kind != Task::Kind::Train) {
        std::this_thread::yield();
        continue;
      }
      std::vector<std::byte> bytes = site.update(task);
      bytes[4] ^= std::byte(altered ? 1 : 0);
      site.upload(task, bytes);
      coordinator.submit(site.submission(task, bytes));
    } catch (const core::Error&) {
      std::this_thread::yield();  // the other one was faster
    }
  }
}

TEST(Coordinator, ASiteThatRunsTwiceHarmsItselfAlone) {
  core::configure_log(0, 1, core::LogLevel::Error);
  FederationConfig config = small_config("fedavg");
  config.rounds = 60;
  const test::TemporaryFolder folder;
  support::ManualClock clock;
  Coordinator coordinator(options_in(folder.path(), config), clock);
  std::vector<FakeSite> sites;
  for (const std::string& name : kSites) {
    sites.emplace_back(coordinator, name);
    sites.back().join();
  }
  std::atomic<bool> over = false;
  std::vector<std::thread> twins;
  for (const bool altered : {false, true, false, true}) {
    twins.emplace_back(
        [&, altered] { work_against_each_other(coordinator, sites[2], altered, over); });
  }
  EXPECT_NO_THROW({
    while (!coordinator.stopped()) {
      if (!coordinator.tick()) {
        const bool worked = sites[0].work() || sites[1].work();
        clock.advance(worked ? 0.0 : 1.0);  // the deadline ends a round that the twins keep open
      }
    }
  });
  over = true;
  for (std::thread& twin : twins) {
    twin.join();
  }
  EXPECT_EQ(coordinator.status()["round"], 60);
}

TEST(Coordinator, ASiteThatLeavesIsCountedOutAndHearsOfTheEnd) {
  core::configure_log(0, 1, core::LogLevel::Error);
  const test::TemporaryFolder folder;
  const support::ManualClock clock;
  FederationConfig config = small_config("fedavg");
  config.rounds = 2;
  config.eval_every = 0;
  config.update.encoding = "ring32";
  config.cohort.size = 3;
  config.privacy.site_clip = 100;
  config.privacy.site_noise = 3;
  config.privacy.site_epsilon = 100;
  Coordinator coordinator(options_in(folder.path(), config), clock);
  std::vector<FakeSite> sites;
  for (const std::string& name : kSites) {
    sites.emplace_back(coordinator, name);
    sites.back().join();
  }
  const auto settle = [&] {
    while (coordinator.tick()) {
    }
  };
  settle();
  for (FakeSite& site : sites) {
    EXPECT_TRUE(site.work());
  }
  settle();
  coordinator.leave("b", "its privacy budget is spent");
  EXPECT_EQ(coordinator.task("b").kind, Task::Kind::Wait);
  EXPECT_TRUE(sites[0].work());
  EXPECT_TRUE(sites[2].work());
  settle();
  EXPECT_TRUE(coordinator.stopped()) << "nobody waits for b";
  EXPECT_EQ(coordinator.task("b").kind, Task::Kind::Done);
  const std::string lines = test::read_text(folder / "rounds.jsonl");
  const core::Json last = core::parse_json(
      lines.substr(lines.find('\n') + 1, lines.rfind('\n') - lines.find('\n') - 1), "line");
  EXPECT_EQ(last["left"], core::Json({"b"}));
  EXPECT_EQ(last["sites"], 2);
  EXPECT_NEAR(last["site_epsilon"].get<double>(), site_epsilon(config, 2).models, 1e-12);
  EXPECT_GT(last["site_epsilon_to_coordinator"], last["site_epsilon"]);
}

TEST(Coordinator, ALostSiteDoesNotStopTheRun) {
  const test::TemporaryFolder folder;
  support::ManualClock clock;
  Coordinator coordinator(options_in(folder.path(), small_config("fedavg")), clock);
  std::vector<FakeSite> sites;
  for (const std::string& name : kSites) {
    sites.emplace_back(coordinator, name);
    sites.back().join();
  }
  while (coordinator.tick()) {
  }
  const Task lost = coordinator.task("c");
  const auto bytes = sites[2].update(lost);
  sites[2].upload(lost, bytes);
  sites[0].work();
  sites[1].work();
  EXPECT_FALSE(coordinator.tick()) << "c may still come";
  clock.advance(51);
  while (coordinator.tick()) {
  }
  EXPECT_EQ(coordinator.submit(sites[2].submission(lost, bytes)).verdict, Verdict::Late);
  std::vector<float> model(kSize);
  RangeFile::open(folder / "models/round-000001.f32", 4 * kSize).read(0, std::span(model));
  const auto value = [](const char* site, size_t i) {
    return static_cast<float>(0.1 * core::RandomStream(3, site, 0).normal(i));
  };
  for (size_t i = 0; i < model.size(); ++i) {
    ASSERT_NEAR(model[i], (value("test.a", i) + value("test.b", i)) / 2, 1e-7);
  }
}

}  // namespace
}  // namespace kamerton::federation
