// SPDX-License-Identifier: Apache-2.0
// What others may send, damaged in many ways: refused with an error, and the run is unharmed.
// KAMERTON_FUZZ_CASES sets the number of cases.
#include <algorithm>
#include <set>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/core/log.h"
#include "kamerton/core/random.h"
#include "kamerton/federation/coordinator.h"
#include "kamerton/federation/round_machine.h"
#include "kamerton/federation/vector_file.h"
#include "kamerton/storage/digest.h"

#include "support/byte_mutator.h"
#include "support/case_count.h"
#include "support/manual_clock.h"
#include "support/temporary_folder.h"

namespace kamerton::federation {
namespace {

using core::Json;

const std::vector<std::string> kWords = {"null",
                                         "-1",
                                         "1e308",
                                         "[]",
                                         "{}",
                                         "\"a\"",
                                         "9223372036854775808",
                                         "true",
                                         "\"round\":",
                                         "\\u0000"};

/// Whether it was taken; anything but a core::Error ends the test.
template <class Attempt>
bool taken(const Attempt& attempt) {
  try {
    attempt();
    return true;
  } catch (const core::Error&) {
    return false;
  }
}

TEST(FederationFuzz, DamagedResultsAndLayoutsAreRefusedOrSound) {
  Submission submission;
  submission.site = "a";
  submission.round = 3;
  submission.digest = std::string(64, 'f');
  submission.targets = 100;
  submission.train_loss = 1.5;
  submission.epsilon = 0.5;
  const std::string result = submission.to_json().dump();
  const std::string layout = Layout({{"w", {50, 40}}, {"v", {1000}}}, 1).to_json().dump();
  const test::ByteMutator mutate(1, kWords);
  uint64_t sound = 0;
  for (uint64_t i = 0; i < test::case_count(4000); ++i) {
    sound += taken([&] {
      const auto read = Submission::from_json(core::parse_json(mutate(result, i), "fuzz"), "fuzz");
      EXPECT_TRUE(read.round >= 0 && read.targets >= 0 && !read.site.empty());
      EXPECT_EQ(Submission::from_json(read.to_json(), "again").to_json(), read.to_json());
    });
    sound += taken([&] {
      const Layout read = Layout::from_json(core::parse_json(mutate(layout, i), "fuzz"), "fuzz");
      EXPECT_GT(read.total(), 0);
      EXPECT_LE(read.total(), int64_t{1} << 40);
    });
  }
  EXPECT_GT(sound, 0U) << "some damage leaves a message sound";
}

FederationConfig small_config() {
  FederationConfig config;
  config.rounds = 3;
  config.eval_every = 2;
  config.weights = "uniform";
  config.cohort.start_sites = 3;
  config.cohort.min_sites = 2;
  config.cohort.deadline_s = 50;
  return config;
}

/// Some event, mostly one that fits.
Json some_event(const RoundMachine& machine, const core::RandomStream& random, uint64_t at) {
  static const std::vector<std::string> kNames = {"a", "b", "c", "d", ""};
  const std::string site = kNames[random.below(10 * at, kNames.size())];
  const int64_t round = machine.round() + static_cast<int64_t>(random.below(10 * at + 1, 12) == 0);
  Submission result;
  result.site = site;
  result.round = round;
  result.digest = random.below(10 * at + 2, 3) == 0 ? "other" : "d-" + site;
  result.eval_targets = 10;
  result.eval_nll = 10;
  const std::vector<Json> events = {
      {{"event", "join"}, {"site", site}},
      {{"event", "back"}, {"site", site}},
      {{"event", "leave"}, {"site", site}, {"reason", "fuzz"}},
      {{"event", "open"}, {"round", round}, {"kind", "train"}, {"sites", Json::array({"a", site})}},
      {{"event", "accept"}, {"result", result.to_json()}},
      {{"event", "close"}, {"round", round}, {"dropped", Json::array({site})}},
      {{"event", "skip"}, {"round", round}, {"dropped", Json::array()}},
      {{"event", "drop"}, {"round", round}, {"site", site}},
      {{"event", "abort"}, {"round", round}},
      {{"event", "commit"},
       {"round", round},
       {"digest", "m"},
       {"elements", 8},
       {"shares", Json::array()}},
      {{"event", "stop"}, {"reason", "fuzz"}}};
  const uint64_t which = random.below(10 * at + 3, 3 * events.size() + 1);
  const auto due = machine.decide(random.below(10 * at + 4, 2) == 0);
  return which < events.size() || !due.has_value() ? events[which % events.size()] : *due;
}

TEST(FederationFuzz, TheRoundMachineKeepsItsRulesUnderAnyEvents) {
  const test::ByteMutator mutate(2, kWords);
  for (uint64_t run = 0; run < test::case_count(4000) / 20; ++run) {
    const core::RandomStream random(5, "test.machine", run);
    RoundMachine machine(small_config(), 5);
    std::vector<Json> history;
    int64_t round = 0;
    for (uint64_t at = 0; at < 60; ++at) {
      const Json event = some_event(machine, random, at);
      taken([&] {  // its damaged twin is tried on a copy
        RoundMachine copy = machine;
        copy.apply(core::parse_json(mutate(event.dump(), 60 * run + at), "fuzz"));
      });
      RoundMachine next = machine;
      if (!taken([&] { next.apply(event); })) {
        continue;
      }
      machine = std::move(next);
      history.push_back(event);
      EXPECT_GE(machine.round(), round) << event.dump();
      round = machine.round();
      EXPECT_LE(machine.commits().size(), static_cast<size_t>(round));
      for (const auto& [site, result] : machine.results()) {
        EXPECT_EQ(result.round, round);
        EXPECT_TRUE(std::binary_search(machine.asked().begin(), machine.asked().end(), site));
        EXPECT_FALSE(machine.awaits(site)) << "counted once";
      }
    }
    RoundMachine again(small_config(), 5);
    for (const Json& event : history) {
      again.apply(event);
    }
    EXPECT_EQ(again.decide(true), machine.decide(true)) << "what is replayed decides alike";
  }
}

constexpr int64_t kSize = 3000;

std::vector<std::byte> update_of(const std::string& site, int64_t round) {
  std::vector<float> values(kSize);
  const core::RandomStream random(3, "test." + site, static_cast<uint64_t>(round));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(0.1 * random.normal(i));
  }
  const auto bytes = std::as_bytes(std::span(values));
  return {bytes.begin(), bytes.end()};
}

Submission result_of(const std::string& site, const Task& task, std::span<const std::byte> bytes) {
  Submission result;
  result.site = site;
  result.round = task.round;
  if (task.kind == Task::Kind::Train) {
    result.digest = storage::to_hex(storage::digest_of(bytes));
    result.bytes = static_cast<int64_t>(bytes.size());
  }
  return result;
}

void honest_turn(Coordinator& coordinator, const std::string& site) {
  const Task task = coordinator.task(site);
  if (task.kind != Task::Kind::Train && task.kind != Task::Kind::Evaluate) {
    return;
  }
  std::vector<std::byte> bytes;
  if (task.kind == Task::Kind::Train) {
    bytes = update_of(site, task.round);
    coordinator.receive(
        site, task.round, 0, 1, coordinator.received(site, task.round, 0, 1), bytes);
  }
  EXPECT_FALSE(coordinator.submit(result_of(site, task, bytes)).send_again);
}

/// One call of a member that means harm: numbers from everywhere, bytes that are no update.
void hostile_turn(Coordinator& coordinator, uint64_t number) {
  const core::RandomStream random(9, "test.hostile", number);
  constexpr int64_t kNumbers[] = {0, 1, 2, 3, -1, 4096, 1 << 20, INT64_MAX, INT64_MIN, 5000};
  const auto pick = [&](uint64_t lane) {
    return kNumbers[random.below(lane, std::size(kNumbers))];
  };
  std::vector<std::byte> rubbish(random.below(0, 5000));
  for (size_t i = 0; i < rubbish.size(); ++i) {
    rubbish[i] = static_cast<std::byte>(random.below(100 + i, 256));
  }
  Submission result;
  result.site = "d";
  result.round = pick(1);
  result.bytes = pick(2);
  result.digest = random.below(3, 2) == 0 ? storage::to_hex(storage::digest_of(rubbish)) : "x";
  result.digest += random.below(4, 9) == 0 ? "" : "0";
  taken([&] { coordinator.task("d"); });
  taken([&] { coordinator.received("d", pick(5), pick(6), pick(7)); });
  taken([&] { coordinator.receive("d", pick(8), pick(9), pick(10), pick(11), rubbish); });
  taken([&] { coordinator.submit(result); });
  taken([&] {
    coordinator.secure("d",
                       pick(12),
                       static_cast<SecureStep>(random.below(13, 5)),
                       {reinterpret_cast<const char*>(rubbish.data()), rubbish.size()});
  });
  taken([&] { coordinator.join({"d", "run", random.below(14, 2) == 0 ? "digest" : "z", "{}"}); });
}

std::string model_of_run(bool hostile) {
  core::configure_log(0, 1, core::LogLevel::Error);
  const test::TemporaryFolder folder;
  support::ManualClock clock;
  FederationConfig config = small_config();
  config.eval_every = 0;
  config.cohort.start_sites = hostile ? 4 : 3;
  Coordinator coordinator(
      {.folder = folder.path(), .run = "run", .digest = "digest", .config = config}, clock);
  std::vector<std::string> sites = {"a", "b", "c"};
  for (const std::string& site : sites) {
    coordinator.join({site, "run", "digest", Layout({{"w", {kSize}}}, 1).to_json().dump()});
  }
  if (hostile) {
    coordinator.join({"d", "run", "digest", Layout({{"w", {kSize}}}, 1).to_json().dump()});
  }
  uint64_t number = 0;
  for (int guard = 0; guard < 100 && !coordinator.stopped(); ++guard) {
    while (coordinator.tick()) {
    }
    for (const std::string& site : sites) {
      for (uint64_t i = 0; hostile && i < test::case_count(4000) / 200; ++i) {
        hostile_turn(coordinator, number++);
      }
      honest_turn(coordinator, site);
    }
    clock.advance(51);
  }
  EXPECT_TRUE(coordinator.stopped());
  EXPECT_EQ(coordinator.stop_reason(), "finished");
  return test::read_text(folder / "models/round-000003.f32");
}

TEST(FederationFuzz, AMemberThatMeansHarmChangesNothing) {
  EXPECT_EQ(model_of_run(true), model_of_run(false));
}

}  // namespace
}  // namespace kamerton::federation
