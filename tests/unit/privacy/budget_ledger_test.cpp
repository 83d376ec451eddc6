// SPDX-License-Identifier: Apache-2.0
#include "kamerton/privacy/budget_ledger.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/byte_mutator.h"
#include "support/case_count.h"
#include "support/expect_error.h"
#include "support/scratch_folder.h"

namespace kamerton::privacy {
namespace {

constexpr PrivacyBudget kBudget{3.0, 1e-5};
constexpr NoisyRelease kRelease{4.0, 1.0, 1};

struct LedgerFile {
  BudgetLedger open(const PrivacyBudget& budget = kBudget) const {
    return BudgetLedger::open(path(), "ward", "records", budget);
  }
  std::string path() const { return folder.file("ledger.jsonl"); }
  support::ScratchFolder folder;
};

TEST(BudgetLedger, SpendsUpToTheBudgetAndRefusesBeforeItIsExceeded) {
  const LedgerFile file;
  BudgetLedger ledger = file.open();
  const uint64_t possible = ledger.affordable(kRelease, 1000);
  ASSERT_GT(possible, 2);
  for (uint64_t i = 0; i < possible; ++i) {
    ledger.reserve("run", "round " + std::to_string(i), kRelease);
  }
  const std::string before = file.folder.read("ledger.jsonl");

  EXPECT_LE(ledger.spent(), kBudget.epsilon);
  EXPECT_EQ(ledger.affordable(kRelease, 1000), 0);
  test::expect_error(core::ErrorKind::Permission, {"exceeded", "records", "ward"}, [&] {
    ledger.reserve("run", "one too many", kRelease);
  });
  EXPECT_EQ(file.folder.read("ledger.jsonl"), before);

  PrivacyAccountant accountant;
  accountant.add({kRelease.noise, 1, possible});
  EXPECT_DOUBLE_EQ(ledger.spent(), accountant.epsilon(kBudget.delta));
}

TEST(BudgetLedger, RemembersOverRestartsAndOtherRuns) {
  const LedgerFile file;
  file.open().reserve("first run", "round 1", kRelease);
  file.open().reserve("second run", "round 1", {1.5, 0.01, 100});

  const BudgetLedger again = BudgetLedger::read(file.path());

  ASSERT_EQ(again.entries().size(), 2);
  EXPECT_EQ(again.entries()[0].run, "first run");
  EXPECT_EQ(again.entries()[1].release, (NoisyRelease{1.5, 0.01, 100}));
  EXPECT_GT(again.entries()[1].epsilon_after, again.entries()[0].epsilon_after);
  EXPECT_NE(again.to_text().find("second run, round 1: 100 releases"), std::string::npos);
}

TEST(BudgetLedger, TheSameReleaseAgainCostsNothingAnotherInItsPlaceIsRefused) {
  const LedgerFile file;
  BudgetLedger ledger = file.open();
  const LedgerEntry first = ledger.reserve("run", "round 1", kRelease);

  const LedgerEntry again = file.open().reserve("run", "round 1", kRelease);

  EXPECT_EQ(again.epsilon_after, first.epsilon_after);
  EXPECT_EQ(BudgetLedger::read(file.path()).entries().size(), 1);
  test::expect_error(core::ErrorKind::Permission, {"other noise"}, [&] {
    ledger.reserve("run", "round 1", {3.0, 1.0, 1});
  });
}

TEST(BudgetLedger, SeesWhatAnotherProcessHasSpent) {
  const LedgerFile file;
  BudgetLedger one = file.open();
  BudgetLedger other = file.open();
  one.reserve("one", "round 1", kRelease);

  other.reserve("other", "round 1", kRelease);

  EXPECT_EQ(other.entries().size(), 2);
}

TEST(BudgetLedger, ManyProcessesAtOnceNeverExceedTheBudget) {
  const LedgerFile file;
  const uint64_t possible = file.open().affordable(kRelease, 1000);
  std::vector<pid_t> children;
  for (int child = 0; child < 4; ++child) {
    children.push_back(::fork());
    if (children.back() == 0) {
      int spent = 0;
      try {
        BudgetLedger ledger = file.open();
        for (int i = 0; i < 20; ++i) {
          ledger.reserve("child " + std::to_string(child), "round " + std::to_string(i), kRelease);
          ++spent;
        }
      } catch (const core::Error& error) {
        _exit(error.kind() == core::ErrorKind::Permission ? spent : 100);
      }
      _exit(spent);
    }
  }
  uint64_t spent = 0;
  for (const pid_t child : children) {
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    spent += static_cast<uint64_t>(WEXITSTATUS(status));
  }

  EXPECT_EQ(spent, std::min<uint64_t>(possible, 80));
  EXPECT_EQ(BudgetLedger::read(file.path()).entries().size(), spent);
  EXPECT_LE(BudgetLedger::read(file.path()).spent(), kBudget.epsilon);
}

TEST(BudgetLedger, AnUnfinishedLineIsCutAndNeverActedOn) {
  const LedgerFile file;
  file.open().reserve("run", "round 1", kRelease);
  const std::string whole = file.folder.read("ledger.jsonl");
  const std::string end = file.folder.read("ledger.jsonl.head");
  file.open().reserve("run", "round 2", kRelease);
  const std::string longer = file.folder.read("ledger.jsonl");
  file.folder.write("ledger.jsonl.head", end);  // a crash comes before the end is noted
  EXPECT_EQ(file.open().entries().size(), 2);
  for (size_t size = whole.size(); size < longer.size(); ++size) {
    file.folder.write("ledger.jsonl", longer.substr(0, size));
    EXPECT_EQ(file.open().entries().size(), 1) << size;
  }
  file.open().reserve("run", "round 3", kRelease);
  EXPECT_EQ(file.open().entries().size(), 2);
}

TEST(BudgetLedger, AChangeACutOrAMoveOfALineIsNoticed) {
  const LedgerFile file;
  BudgetLedger ledger = file.open();
  for (int i = 0; i < 3; ++i) {
    ledger.reserve("run", "round " + std::to_string(i), kRelease);
  }
  const std::string good = file.folder.read("ledger.jsonl");
  const auto noticed = [&](const std::string& text) {
    file.folder.write("ledger.jsonl", text);
    test::expect_error(core::ErrorKind::Data, {"does not follow"}, [&] { file.open(); });
  };
  std::string edited = good;
  edited.replace(edited.find("\"noise\":4.0"), 11, "\"noise\":9.0");
  noticed(edited);
  const size_t second = good.find('\n') + 1;
  const size_t third = good.find('\n', second) + 1;
  noticed(good.substr(0, second) + good.substr(third));
}

TEST(BudgetLedger, AChangedOrCutEndIsNoticed) {
  const LedgerFile file;
  file.open();
  const std::string fresh = file.folder.read("ledger.jsonl");
  file.open().reserve("run", "round 1", kRelease);
  file.open().reserve("run", "round 2", kRelease);
  const std::string good = file.folder.read("ledger.jsonl");
  const auto noticed = [&](const std::string& text) {
    file.folder.write("ledger.jsonl", text);
    test::expect_error(core::ErrorKind::Data, {"ledger.jsonl", ".head"}, [&] { file.open(); });
    if (!text.empty()) {
      test::expect_error(
          core::ErrorKind::Data, {"changed or cut"}, [&] { BudgetLedger::read(file.path()); });
    }
  };
  std::string edited = good;
  edited.replace(edited.rfind("\"noise\":4.0"), 11, "\"noise\":9.0");
  noticed(edited);
  noticed(good.substr(0, good.rfind('\n', good.size() - 2) + 1));
  noticed(good.substr(0, good.size() - 5));
  noticed(fresh);
  noticed("");
  file.folder.write("ledger.jsonl", good);
  EXPECT_EQ(file.open().entries().size(), 2);
  std::filesystem::remove(file.path() + ".head");
  test::expect_error(core::ErrorKind::Data, {"no such file"}, [&] { file.open(); });
}

TEST(BudgetLedger, BelongsToOneSiteDataSetAndBudget) {
  const LedgerFile file;
  file.open();
  test::expect_error(core::ErrorKind::Permission, {"another site"}, [&] {
    BudgetLedger::open(file.path(), "ward", "other records", kBudget);
  });
  test::expect_error(core::ErrorKind::Permission, {"larger"}, [&] { file.open({4.0, 1e-5}); });
  test::expect_error(core::ErrorKind::Permission, {"larger"}, [&] { file.open({3.0, 1e-4}); });
  EXPECT_EQ(file.open({2.0, 1e-6}).budget().epsilon, 2.0);
  test::expect_error(core::ErrorKind::Config, {"epsilon"}, [&] { file.open({0.0, 1e-5}); });
  struct stat status = {};
  ASSERT_EQ(::stat(file.path().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600);
}

TEST(BudgetLedgerFuzz, DamagedLedgersAreRefusedOrRead) {
  const LedgerFile file;
  file.open().reserve("run", "round 1", kRelease);
  const std::string good = file.folder.read("ledger.jsonl");
  const test::ByteMutator mutate(20265, {"{", "}", "\n", "1e999", "-1", "null", "\"count\""});
  for (uint64_t i = 0; i < test::case_count(1500); ++i) {
    file.folder.write("ledger.jsonl", mutate(good, i));
    try {
      BudgetLedger::read(file.path());
    } catch (const core::Error& error) {
      ASSERT_TRUE(error.kind() == core::ErrorKind::Data || error.kind() == core::ErrorKind::Config)
          << i << ": " << error.what();
    }
  }
}

}  // namespace
}  // namespace kamerton::privacy
