// SPDX-License-Identifier: Apache-2.0
#include "kamerton/federation/round_machine.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "support/expect_error.h"

namespace kamerton::federation {
namespace {

using core::Json;

/// A machine that remembers its events, so that it can be replayed.
struct Driver {
  FederationConfig config;
  RoundMachine machine;
  std::vector<Json> events;

  explicit Driver(const FederationConfig& given) : config(given), machine(given, 5) {}

  void apply(const Json& event) {
    machine.apply(event);
    events.push_back(event);
  }
  void join(std::initializer_list<const char*> sites) {
    for (const char* site : sites) {
      apply({{"event", "join"}, {"site", site}});
    }
  }
  /// Carries out what is due; the name of the event, "" for none.
  std::string step(bool overdue = false) {
    const auto event = machine.decide(overdue);
    if (!event.has_value()) {
      return "";
    }
    apply(*event);
    return (*event)["event"];
  }
  Submission result(const std::string& site, double loss = 1.0) const {
    Submission submission;
    submission.site = site;
    submission.round = machine.round();
    submission.digest = "d-" + site;
    submission.targets = 100;
    submission.eval_nll = loss * 10;
    submission.eval_targets = 10;
    return submission;
  }
  void accept(const std::string& site, double loss = 1.0) {
    apply({{"event", "accept"}, {"result", result(site, loss).to_json()}});
  }
  void commit() {
    apply({{"event", "commit"},
           {"round", machine.round()},
           {"digest", "m"},
           {"elements", 8},
           {"shares", Json::array()}});
  }
  void whole_round(double loss = 1.0) {
    ASSERT_EQ(step(), "open");
    for (const std::string& site : std::vector<std::string>(machine.asked())) {
      accept(site, loss);
    }
    ASSERT_EQ(step(), "close");
    commit();
  }
};

FederationConfig two_rounds() {
  FederationConfig config;
  config.rounds = 2;
  config.cohort.start_sites = 3;
  config.cohort.min_sites = 2;
  return config;
}

TEST(RoundMachine, RunsItsRoundsThenMeasuresAndStops) {
  Driver driver(two_rounds());
  driver.join({"a", "b"});
  EXPECT_EQ(driver.step(), "") << "one more must join";
  driver.join({"c"});
  driver.whole_round();
  driver.whole_round();
  EXPECT_EQ(driver.step(), "open");
  EXPECT_TRUE(driver.machine.evaluates_only());
  for (const char* site : {"a", "b", "c"}) {
    driver.accept(site);
  }
  EXPECT_EQ(driver.step(), "close");
  EXPECT_EQ(driver.step(), "stop");
  EXPECT_EQ(driver.machine.stop_reason(), "finished");
  EXPECT_EQ(driver.machine.evaluations().size(), 3U);
}

TEST(RoundMachine, ResultsCountOnce) {
  Driver driver(two_rounds());
  driver.join({"a", "b", "c"});
  driver.step();
  const Submission first = driver.result("a");
  EXPECT_EQ(driver.machine.judge(first), Verdict::Accept);
  driver.accept("a");
  EXPECT_EQ(driver.machine.judge(first), Verdict::Duplicate);
  Submission other = first;
  other.digest = "another";
  EXPECT_EQ(driver.machine.judge(other), Verdict::Conflict);
  EXPECT_EQ(driver.machine.judge(driver.result("stranger")), Verdict::NotAsked);
  Submission early = driver.result("b");
  early.round = 1;
  EXPECT_EQ(driver.machine.judge(early), Verdict::NotAsked);
  driver.accept("b");
  driver.accept("c");
  driver.step();
  EXPECT_EQ(driver.machine.judge(first), Verdict::Duplicate) << "acknowledged again after close";
  driver.commit();
  EXPECT_EQ(driver.machine.judge(first), Verdict::Late);
  EXPECT_THROW(driver.apply({{"event", "accept"}, {"result", first.to_json()}}), core::Error);
}

TEST(RoundMachine, ADeadlineDropsThoseThatAreMissingUntilTheyComeBack) {
  Driver driver(two_rounds());
  driver.join({"a", "b", "c"});
  driver.step();
  driver.accept("a");
  driver.accept("b");
  EXPECT_EQ(driver.step(), "") << "c may still come";
  EXPECT_EQ(driver.step(true), "close");
  EXPECT_TRUE(driver.machine.is_away("c"));
  EXPECT_EQ(driver.machine.judge(driver.result("c")), Verdict::Late);
  driver.commit();
  driver.step();
  EXPECT_EQ(driver.machine.asked(), (std::vector<std::string>{"a", "b"}));
  driver.apply({{"event", "back"}, {"site", "c"}});
  EXPECT_FALSE(driver.machine.awaits("c")) << "from the next round on";
}

TEST(RoundMachine, BelowTheQuorumTheModelStays) {
  Driver driver(two_rounds());
  driver.join({"a", "b", "c"});
  driver.step();
  driver.accept("a");
  EXPECT_EQ(driver.step(true), "skip");
  EXPECT_EQ(driver.machine.round(), 1);
  EXPECT_TRUE(driver.machine.commits().empty());
}

TEST(RoundMachine, NobodyLeftStopsTheRun) {
  Driver driver(two_rounds());
  driver.join({"a", "b", "c"});
  driver.step();
  for (const char* site : {"a", "b"}) {
    driver.apply({{"event", "leave"}, {"site", site}, {"reason", "budget"}});
  }
  EXPECT_EQ(driver.step(true), "skip");
  EXPECT_EQ(driver.step(), "stop");
  EXPECT_EQ(driver.machine.stop_reason(), "too few sites are left");
}

TEST(RoundMachine, OverSelectionClosesWithTheFirst) {
  FederationConfig config = two_rounds();
  config.cohort.size = 2;
  config.cohort.extra = 1;
  config.cohort.start_sites = 5;
  Driver driver(config);
  driver.join({"a", "b", "c", "d", "e"});
  driver.step();
  const std::vector<std::string> asked = driver.machine.asked();
  ASSERT_EQ(asked.size(), 3U);
  driver.accept(asked[2]);
  driver.accept(asked[0]);
  EXPECT_EQ(driver.step(), "close");
  EXPECT_FALSE(driver.machine.is_away(asked[1])) << "asked beyond need: not its fault";
}

TEST(RoundMachine, CohortsAreSeededAndDiffer) {
  std::vector<std::string> names;
  for (int i = 0; i < 20; ++i) {
    names.push_back("site-" + std::to_string(i));
  }
  std::set<std::vector<std::string>> seen;
  for (int64_t round = 0; round < 20; ++round) {
    const auto drawn = draw_sites(names, 5, 1, round);
    EXPECT_EQ(drawn.size(), 5U);
    EXPECT_EQ(drawn, draw_sites(names, 5, 1, round));
    seen.insert(drawn);
  }
  EXPECT_GT(seen.size(), 15U);
}

TEST(RoundMachine, NoBetterLossStopsEarly) {
  FederationConfig config = two_rounds();
  config.rounds = 100;
  config.patience = 2;
  Driver driver(config);
  driver.join({"a", "b", "c"});
  for (const double loss : {3.0, 2.0, 2.5, 2.2}) {
    driver.whole_round(loss);
  }
  EXPECT_EQ(driver.step(), "open");
  EXPECT_TRUE(driver.machine.evaluates_only());
  driver.accept("a", 2.3);
  driver.accept("b", 2.3);
  driver.accept("c", 2.3);
  driver.step();
  EXPECT_EQ(driver.step(), "stop");
  EXPECT_THAT(driver.machine.stop_reason(), testing::HasSubstr("patience"));
}

TEST(RoundMachine, ReplayFromAnyPointDecidesTheSame) {
  Driver driver(two_rounds());
  driver.join({"a", "b", "c"});
  driver.whole_round();
  driver.step();
  driver.accept("b");
  driver.step(true);
  driver.step();
  for (size_t cut = 0; cut <= driver.events.size(); ++cut) {
    RoundMachine first(driver.config, 5);
    RoundMachine second(driver.config, 5);
    for (size_t i = 0; i < cut; ++i) {
      first.apply(driver.events[i]);
      second.apply(Json::parse(driver.events[i].dump()));
    }
    EXPECT_EQ(first.decide(false).value_or(Json()).dump(),
              second.decide(false).value_or(Json()).dump());
    EXPECT_EQ(first.phase(), second.phase());
  }
}

}  // namespace
}  // namespace kamerton::federation
