// SPDX-License-Identifier: Apache-2.0
// What has been spent of the privacy of one data set at one site, over all runs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "kamerton/privacy/accountant.h"

namespace kamerton::privacy {

struct PrivacyBudget {
  double epsilon = 0.0;
  double delta = 0.0;
};

struct LedgerEntry {
  int64_t time = 0;  ///< seconds since 1970
  std::string run;   ///< which run
  std::string what;  ///< which part of it: "round 3", "steps 1-100"
  NoisyRelease release;
  double epsilon_after = 0.0;  ///< at the budget's delta, all entries up to this one
};

/// A file of JSON lines: a head (site, data set, budget), then entries, each with the digest of the
/// line before; beside it PATH.head names the last one, so that a cut or edited end is seen, too.
/// Any number of processes may use it: every operation locks the file and reads what others have
/// added. An entry is on the disk before reserve() returns, and reserve() returns before the noise
/// is drawn: a crash can only overstate what was spent.
class BudgetLedger {
 public:
  /// Creates the file (mode 0600) or opens it. Throws ErrorKind::Permission when the file is of
  /// another site or data set, or its budget is smaller than `budget` (a larger budget is a new
  /// decision: see widen); ErrorKind::Data when a line was changed, cut or reordered.
  static BudgetLedger open(const std::filesystem::path& path,
                           const std::string& site,
                           const std::string& data_set,
                           const PrivacyBudget& budget);
  /// Reads only; Data when there is no such file.
  static BudgetLedger read(const std::filesystem::path& path);

  /// Spends. The same (run, what) with the same release again costs nothing and adds nothing (a
  /// restart repeats the same release with the same noise); with another release it is refused.
  /// Throws ErrorKind::Permission, and writes nothing, when the budget would be exceeded.
  LedgerEntry reserve(const std::string& run, const std::string& what, const NoisyRelease& release);
  /// How many releases like `one` are still affordable, at most `wanted`.
  uint64_t affordable(const NoisyRelease& one, uint64_t wanted) const;

  const std::string& site() const noexcept { return site_; }
  const std::string& data_set() const noexcept { return data_set_; }
  const PrivacyBudget& budget() const noexcept { return budget_; }
  const std::vector<LedgerEntry>& entries() const noexcept { return entries_; }
  double spent() const;  ///< epsilon at the budget's delta
  /// Lines for people: budget, spent, left, one line an entry.
  std::string to_text() const;

 private:
  BudgetLedger() = default;
  void load(std::string_view text);
  void check_end(const std::string& before_last) const;
  void write_end() const;
  PrivacyAccountant accountant() const;

  std::filesystem::path path_;
  std::string site_;
  std::string data_set_;
  PrivacyBudget budget_;
  std::vector<LedgerEntry> entries_;
  std::string last_digest_;
  size_t whole_bytes_ = 0;  ///< up to the last complete line
};

}  // namespace kamerton::privacy
