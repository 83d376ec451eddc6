// SPDX-License-Identifier: Apache-2.0
#include "kamerton/privacy/budget_ledger.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/json.h"

#include "faults.h"
#include "json_line.h"
#include "locked_file.h"

namespace kamerton::privacy {
namespace {

constexpr char kBudgetLedgerWhere[] = "privacy.budget_ledger";
constexpr uint64_t kBudgetLedgerMaxBytes = uint64_t{1} << 28;
constexpr char kFormat[] = "kamerton privacy ledger 1";

double number_of(const core::Json& object, const char* key, const std::string& origin) {
  const double value = core::json_number(object, key, origin);
  if (!std::isfinite(value)) {
    bad_data(kBudgetLedgerWhere, origin + ": '" + key + "' is not finite");
  }
  return value;
}

LedgerEntry entry_of(const core::Json& json, const std::string& origin) {
  LedgerEntry entry{.time = core::json_int(json, "time", origin),
                    .run = core::json_string(json, "run", origin),
                    .what = core::json_string(json, "what", origin),
                    .release = {.noise = number_of(json, "noise", origin),
                                .sampling = number_of(json, "sampling", origin)},
                    .epsilon_after = number_of(json, "epsilon_after", origin)};
  const int64_t count = core::json_int(json, "count", origin);
  const bool sound = count > 0 && entry.release.noise > 0 && entry.release.sampling > 0 &&
                     entry.release.sampling <= 1;
  if (!sound) {
    bad_data(kBudgetLedgerWhere, origin + " is not a release that this program would have written");
  }
  entry.release.count = static_cast<uint64_t>(count);
  return entry;
}

core::Json json_of(const LedgerEntry& entry, const std::string& previous) {
  return {{"time", entry.time},
          {"run", entry.run},
          {"what", entry.what},
          {"noise", entry.release.noise},
          {"sampling", entry.release.sampling},
          {"count", entry.release.count},
          {"epsilon_after", entry.epsilon_after},
          {"previous", previous}};
}

std::string head_line(const std::string& site,
                      const std::string& data_set,
                      const PrivacyBudget& budget) {
  const core::Json head = {{"format", kFormat},
                           {"site", site},
                           {"data_set", data_set},
                           {"epsilon", budget.epsilon},
                           {"delta", budget.delta}};
  return head.dump();
}

void check_budget(const PrivacyBudget& budget) {
  if (!(budget.epsilon > 0) || !std::isfinite(budget.epsilon) || !(budget.delta > 0) ||
      !(budget.delta < 1)) {
    bad_choice(kBudgetLedgerWhere,
               "a budget has an epsilon above 0 and a delta between 0 and 1",
               fmt::format("({}, {})", budget.epsilon, budget.delta));
  }
}

/// The file that names the ledger's last line.
std::filesystem::path end_path(std::filesystem::path path) {
  return path += ".head";
}

struct LedgerEnd {
  int64_t lines = 0;
  std::string digest;
};

/// nullopt: there is none.
std::optional<LedgerEnd> read_end(const std::filesystem::path& path) {
  const std::filesystem::path end = end_path(path);
  if (!std::filesystem::exists(end)) {
    return std::nullopt;
  }
  const std::string origin = "'" + end.string() + "'";
  const LockedFile file(end, LockedFile::Mode::Read);
  const core::Json json = core::parse_json(file.read(1 << 12), origin);
  return LedgerEnd{core::json_int(json, "lines", origin),
                   core::json_string(json, "digest", origin)};
}

}  // namespace

/// Of the ledger as it was loaded. A crash may have come between a line and its end: the line
/// before is named then.
void BudgetLedger::check_end(const std::string& before_last) const {
  const std::optional<LedgerEnd> end = read_end(path_);
  const auto lines = static_cast<int64_t>(entries_.size()) + 1;
  const bool named = end.has_value() && ((end->lines == lines && end->digest == last_digest_) ||
                                         (end->lines + 1 == lines && end->digest == before_last));
  if (!named && (end.has_value() || lines > 1)) {
    bad_data(kBudgetLedgerWhere,
             "the end of '" + path_.string() + "' was changed or cut: it is not the one that '" +
                 end_path(path_).string() + "' names",
             end.has_value() ? fmt::format("{} lines", lines) : "no such file",
             end.has_value() ? fmt::format("{} lines", end->lines) : "the file beside the ledger");
  }
}

void BudgetLedger::write_end() const {
  const core::Json json = {{"lines", entries_.size() + 1}, {"digest", last_digest_}};
  write_private_file(end_path(path_), json.dump() + "\n");
}

void BudgetLedger::load(std::string_view text) {
  const std::string name = "'" + path_.string() + "'";
  const Lines lines = lines_of(text);
  if (lines.whole.empty()) {
    bad_data(kBudgetLedgerWhere, name + " is not a privacy ledger: it has no head");
  }
  entries_.clear();
  last_digest_.clear();
  std::string before_last;
  for (size_t i = 0; i < lines.whole.size(); ++i) {
    const std::string origin = name + ", line " + std::to_string(i + 1);
    const core::Json json = core::parse_json(lines.whole[i], origin, {.max_bytes = 1 << 16});
    if (i == 0) {
      if (core::json_string(json, "format", origin) != kFormat) {
        bad_data(kBudgetLedgerWhere, origin + ": another format", {}, kFormat);
      }
      site_ = core::json_string(json, "site", origin);
      data_set_ = core::json_string(json, "data_set", origin);
      budget_ = {number_of(json, "epsilon", origin), number_of(json, "delta", origin)};
      check_budget(budget_);
    } else {
      if (core::json_string(json, "previous", origin) != last_digest_) {
        bad_data(kBudgetLedgerWhere,
                 origin + " does not follow the line before: a line was changed, cut or moved");
      }
      entries_.push_back(entry_of(json, origin));
    }
    before_last = std::exchange(last_digest_, line_digest(lines.whole[i]));
  }
  whole_bytes_ = lines.bytes;
  check_end(before_last);
}

BudgetLedger BudgetLedger::open(const std::filesystem::path& path,
                                const std::string& site,
                                const std::string& data_set,
                                const PrivacyBudget& budget) {
  check_budget(budget);
  LockedFile file(path, LockedFile::Mode::Create);
  BudgetLedger ledger;
  ledger.path_ = path;
  std::string text = file.read(kBudgetLedgerMaxBytes);
  if (lines_of(text).whole.empty()) {  // new, or its very first write was cut short
    if (read_end(path).has_value()) {
      bad_data(kBudgetLedgerWhere,
               "'" + path.string() + "' was emptied or removed: '" + end_path(path).string() +
                   "' names what it held");
    }
    file.truncate(0);
    file.append(head_line(site, data_set, budget) + "\n");
    text = file.read(kBudgetLedgerMaxBytes);
    ledger.load(text);
    ledger.write_end();
  }
  ledger.load(text);
  if (ledger.site_ != site || ledger.data_set_ != data_set) {
    refuse(kBudgetLedgerWhere,
           "'" + path.string() + "' is the ledger of another site or data set",
           ledger.site_ + ", " + ledger.data_set_,
           site + ", " + data_set);
  }
  if (budget.epsilon > ledger.budget_.epsilon || budget.delta > ledger.budget_.delta) {
    refuse(
        kBudgetLedgerWhere,
        "the budget asked for is larger than the one that '" + path.string() + "' was opened with",
        fmt::format("({}, {})", budget.epsilon, budget.delta),
        fmt::format("({}, {})", ledger.budget_.epsilon, ledger.budget_.delta),
        "the site's data officer may open a new ledger; what was spent stays spent");
  }
  ledger.budget_ = budget;
  return ledger;
}

BudgetLedger BudgetLedger::read(const std::filesystem::path& path) {
  const LockedFile file(path, LockedFile::Mode::Read);
  BudgetLedger ledger;
  ledger.path_ = path;
  ledger.load(file.read(kBudgetLedgerMaxBytes));
  return ledger;
}

PrivacyAccountant BudgetLedger::accountant() const {
  PrivacyAccountant accountant;
  for (const LedgerEntry& entry : entries_) {
    accountant.add(entry.release);
  }
  return accountant;
}

LedgerEntry BudgetLedger::reserve(const std::string& run,
                                  const std::string& what,
                                  const NoisyRelease& release) {
  check(release);
  if (release.count == 0) {
    bad_choice(kBudgetLedgerWhere, "nothing is spent by no release");
  }
  LockedFile file(path_, LockedFile::Mode::Change);
  const PrivacyBudget own = budget_;
  const std::string text = file.read(kBudgetLedgerMaxBytes);
  load(text);
  budget_ = {std::min(own.epsilon, budget_.epsilon), std::min(own.delta, budget_.delta)};
  for (const LedgerEntry& entry : entries_) {
    if (entry.run == run && entry.what == what) {
      if (!(entry.release == release)) {
        refuse(kBudgetLedgerWhere,
               "'" + what + "' of run '" + run + "' was spent with other noise before");
      }
      return entry;
    }
  }
  PrivacyAccountant after = accountant();
  after.add(release);
  LedgerEntry entry{.time = now_seconds(),
                    .run = run,
                    .what = what,
                    .release = release,
                    .epsilon_after = after.epsilon(budget_.delta)};
  if (!(entry.epsilon_after <= budget_.epsilon)) {
    refuse(kBudgetLedgerWhere,
           "the privacy budget of '" + data_set_ + "' at '" + site_ + "' would be exceeded by '" +
               what + "'",
           fmt::format("epsilon {:.4f} at delta {}, of which {:.4f} is spent",
                       entry.epsilon_after,
                       budget_.delta,
                       spent()),
           fmt::format("{:.4f}", budget_.epsilon),
           "more noise, fewer steps, or stop here: the model so far is within the budget");
  }
  if (text.size() > whole_bytes_) {
    file.truncate(whole_bytes_);  // a line that a crash left unfinished: it was never acted on
  }
  const std::string line = json_of(entry, last_digest_).dump();
  file.append(line + "\n");
  entries_.push_back(entry);
  last_digest_ = line_digest(line);
  whole_bytes_ += line.size() + 1;
  write_end();
  return entry;
}

uint64_t BudgetLedger::affordable(const NoisyRelease& one, uint64_t wanted) const {
  check(one);
  const auto within = [&](uint64_t count) {
    PrivacyAccountant after = accountant();
    after.add({.noise = one.noise, .sampling = one.sampling, .count = count});
    return after.epsilon(budget_.delta) <= budget_.epsilon;
  };
  uint64_t low = 0;
  uint64_t high = wanted;
  while (low < high) {
    const uint64_t middle = low + (high - low + 1) / 2;
    if (within(middle)) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

double BudgetLedger::spent() const {
  return accountant().epsilon(budget_.delta);
}

std::string BudgetLedger::to_text() const {
  const double used = spent();
  std::string text = fmt::format(
      "privacy ledger of '{}' at '{}'\nbudget  epsilon {:g} at delta {:g}\nspent   epsilon {:.4f}\n"
      "left    epsilon {:.4f}\n",
      data_set_,
      site_,
      budget_.epsilon,
      budget_.delta,
      used,
      std::max(budget_.epsilon - used, 0.0));
  for (const LedgerEntry& entry : entries_) {
    text += fmt::format(
        "{}  {}, {}: {} release{} with noise {:g}, sampling {:g}: epsilon {:.4f} so far\n",
        time_text(entry.time),
        entry.run,
        entry.what,
        entry.release.count,
        entry.release.count == 1 ? "" : "s",
        entry.release.noise,
        entry.release.sampling,
        entry.epsilon_after);
  }
  return text;
}

}  // namespace kamerton::privacy
