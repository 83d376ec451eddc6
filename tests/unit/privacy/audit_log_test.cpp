// SPDX-License-Identifier: Apache-2.0
#include "kamerton/privacy/audit_log.h"

#include <filesystem>
#include <optional>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "bytes.h"
#include "support/byte_mutator.h"
#include "support/case_count.h"
#include "support/expect_error.h"
#include "support/scratch_folder.h"

namespace kamerton::privacy {
namespace {

struct Log {
  Log() : key(test_random().secret()) {}
  AuditLog open() const {
    AuditLog log(path(), key, "site 'ward'");
    log.set_clock([] { return int64_t{1790000000}; });
    return log;
  }
  std::string path() const { return folder.file("audit.jsonl"); }
  std::string text() const { return folder.read("audit.jsonl"); }
  AuditReport verify(const std::vector<AuditHead>& known = {}) const {
    return verify_audit(path(), key.public_key(), known);
  }
  /// Five records.
  void fill() const {
    AuditLog log = open();
    log.append(audit::kJoin, {{"federation", "north"}});
    log.append(audit::kModelReceived, {{"round", 1}, {"model", "blake2b-256:00ff"}});
    log.append(audit::kLedger, {{"round", 1}, {"epsilon_after", 0.5}});
    log.append(audit::kUpdateSent, {{"round", 1}, {"bytes", 4096}, {"digest", "aa"}});
    log.append(audit::kRefusal, {{"reason", "another list of survivors"}});
  }
  support::ScratchFolder folder;
  SigningKey key;
};

std::vector<std::string> lines_of_text(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) {
    lines.push_back(line + "\n");
  }
  return lines;
}

std::string joined(const std::vector<std::string>& lines) {
  std::string text;
  for (const auto& line : lines) {
    text += line;
  }
  return text;
}

TEST(AuditLog, VerifiesAndTellsWhatHappened) {
  const Log log;
  log.fill();

  const AuditReport report = log.verify();
  const std::string account = account_of(report);

  EXPECT_TRUE(report.good());
  EXPECT_EQ(report.records.size(), 5);
  EXPECT_EQ(report.head.records, 5);
  for (const char* part : {"model received",
                           "model=blake2b-256:00ff",
                           "2026-09-21 ",
                           "site 'ward'",
                           "4096 bytes are recorded as sent",
                           "privacy spent: epsilon 0.5000",
                           "the log is whole"}) {
    EXPECT_NE(account.find(part), std::string::npos) << part << "\n" << account;
  }
}

TEST(AuditLog, GoesOnAfterARestart) {
  const Log log;
  log.fill();
  const AuditHead before = log.verify().head;
  log.open().append("again", core::Json::object());

  EXPECT_TRUE(log.verify({before}).good());
  EXPECT_EQ(log.verify().head.records, 6);
}

TEST(AuditLog, AnyEditOfAnyLineIsFound) {
  const Log log;
  log.fill();
  const std::string good = log.text();
  for (size_t i = 0; i < good.size(); ++i) {
    std::string edited = good;
    edited[i] = static_cast<char>(edited[i] ^ (edited[i] == '\n' ? 0x2a : 1));
    log.folder.write("audit.jsonl", edited);
    EXPECT_FALSE(log.verify().good()) << i;
  }
}

TEST(AuditLog, AnyCutInsertionOrMoveIsFound) {
  const Log log;
  log.fill();
  const auto lines = lines_of_text(log.text());
  const auto found = [&](const std::vector<std::string>& changed) {
    log.folder.write("audit.jsonl", joined(changed));
    EXPECT_FALSE(log.verify().good()) << changed.size();
  };
  for (size_t i = 0; i < lines.size(); ++i) {
    auto without = lines;
    without.erase(without.begin() + static_cast<long>(i));
    found(without);
    auto twice = lines;
    twice.insert(twice.begin() + static_cast<long>(i), lines[i]);
    found(twice);
    if (i > 0) {
      auto moved = lines;
      std::swap(moved[i], moved[i - 1]);
      found(moved);
      found({lines.begin(), lines.begin() + static_cast<long>(i)});  // the end is cut
    }
  }
  found({});
}

TEST(AuditLog, ACutTogetherWithAnOldEndIsFoundByAHeadSeenElsewhere) {
  const Log log;
  log.fill();
  const AuditHead seen = log.verify().head;
  const auto lines = lines_of_text(log.text());
  support::ScratchFolder copy;
  {
    AuditLog shorter(copy.file("audit.jsonl"), log.key, "site 'ward'");
    shorter.append("other history", core::Json::object());
  }

  const auto report = verify_audit(copy.file("audit.jsonl"), log.key.public_key(), {seen});

  ASSERT_EQ(report.faults.size(), 1);
  EXPECT_NE(report.faults[0].find("seen elsewhere"), std::string::npos);
}

TEST(AuditLog, AnotherKeysLogIsRefused) {
  const Log log;
  log.fill();
  const SigningKey other(test_random(5).secret());

  EXPECT_FALSE(verify_audit(log.path(), other.public_key()).good());
  test::expect_error(core::ErrorKind::Data, {"nothing is added"}, [&] {
    AuditLog(log.path(), other, "somebody");
  });
}

TEST(AuditLog, OneWriterAtATime) {
  const Log log;
  std::optional<AuditLog> first(log.open());
  test::expect_error(core::ErrorKind::Output, {"another process"}, [&] { log.open(); });
  first.reset();
  EXPECT_NO_THROW(log.open());
}

TEST(AuditLog, AnUnfinishedLastLineIsCutAndSaidSo) {
  const Log log;
  log.fill();
  const std::string good = log.text();
  const auto lines = lines_of_text(good);
  log.folder.write("audit.jsonl", good + lines[4].substr(0, 40));
  EXPECT_FALSE(log.verify().good());

  { const AuditLog again = log.open(); }

  const AuditReport report = log.verify();
  EXPECT_TRUE(report.good());
  EXPECT_EQ(report.records.back().event, "recovered");
}

TEST(AuditLog, ACrashBetweenRecordAndEndIsNoFault) {
  const Log log;
  log.fill();
  const std::string head = log.folder.read("audit.jsonl.head");
  log.open().append("last", core::Json::object());
  log.folder.write("audit.jsonl.head", head);

  EXPECT_TRUE(log.verify().good());
  { const AuditLog again = log.open(); }
  EXPECT_NE(log.folder.read("audit.jsonl.head"), head);
}

TEST(AuditLogFuzz, DamagedLogsAreFoundAndNeverCrash) {
  const Log log;
  log.fill();
  const std::string good = log.text();
  const test::ByteMutator mutate(20266, {"{", "}", "\n", "\"number\"", "null", "[[[[", "\xff"});
  for (uint64_t i = 0; i < test::case_count(1500); ++i) {
    const std::string damaged = mutate(good, i);
    log.folder.write("audit.jsonl", damaged);
    const AuditReport report = log.verify();
    EXPECT_TRUE(damaged == good || !report.good()) << i;
    EXPECT_FALSE(account_of(report).empty());
  }
}

TEST(AuditLog, AnEndThatTheOtherSideHasWrittenDownFindsARewrittenLog) {
  const Log log;
  log.fill();
  const Log other;
  {
    AuditLog hub(other.path(), other.key, "hub");
    hub.append(audit::kHeadSeen, head_seen("site 'ward'", head_text(log.verify().head)));
    hub.append(audit::kHeadSeen, head_seen("another", "1:" + std::string(64, 'a')));
  }
  const auto heads = heads_seen(other.verify(), "site 'ward'");
  ASSERT_EQ(heads.size(), 1U);
  EXPECT_TRUE(log.verify(heads).good());

  // Its owner writes it anew, signed and whole, without the refusal.
  std::filesystem::remove(log.path());
  std::filesystem::remove(log.path() + ".head");
  AuditLog anew = log.open();
  anew.append(audit::kJoin, {{"federation", "north"}});
  for (int i = 0; i < 6; ++i) {
    anew.append(audit::kModelReceived, {{"round", i}});
  }
  EXPECT_TRUE(log.verify().good());
  const AuditReport found = log.verify(heads);
  ASSERT_FALSE(found.good());
  EXPECT_NE(found.faults[0].find("was seen elsewhere"), std::string::npos);
}

TEST(AuditLog, OnlyAnEndIsTakenForOne) {
  const std::string digest(64, 'b');
  EXPECT_EQ(parse_head("12:" + digest).records, 12U);
  for (const std::string& bad : {std::string(),
                                 "12:" + digest.substr(1),
                                 "x:" + digest,
                                 ":" + digest,
                                 "12:" + std::string(64, 'B'),
                                 "1234567890123456789:" + digest}) {
    test::expect_error(core::ErrorKind::Data, {"not the end"}, [&] { parse_head(bad); });
  }
}

}  // namespace
}  // namespace kamerton::privacy
