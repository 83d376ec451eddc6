// SPDX-License-Identifier: Apache-2.0
// Rounds as a pure state machine: events go in, the next decision comes out. No clock, no files, no
// network: the same for a simulation and for sites across a WAN, and replayed from the journal
// after a crash.
//
//   Gathering --open--> Open --close--> Closed --commit--> Idle --open--> ... --stop--> Stopped
//                         `--skip (too few results: the model stays)--> Idle
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "kamerton/core/json.h"
#include "kamerton/federation/config.h"
#include "kamerton/federation/submission.h"

namespace kamerton::federation {

enum class Phase { Gathering, Open, Closed, Idle, Stopped };

/// What becomes of a submission.
enum class Verdict {
  Accept,
  Duplicate,  ///< the same result again: acknowledged again, counted once
  Late,       ///< of a round that is closed
  NotAsked,   ///< of a site that is not in this round, or of a round that has not begun
  Conflict,   ///< another result than the one that was accepted
};

/// Sums over all sites that measured the model that a round began with.
struct EvalSums {
  double nll = 0;
  int64_t targets = 0;
  int64_t correct = 0;
};

class RoundMachine {
 public:
  RoundMachine(const FederationConfig& config, uint64_t seed);

  /// Takes an event that happened: join {site}, back {site}, leave {site, reason}, open {round,
  /// kind, sites}, accept {submission}, close {round, dropped}, skip {round, dropped}, drop
  /// {round, site} (fell out of a masked round), abort {round} (of one that is closed), commit
  /// {round, digest, elements, shares}, stop {reason}. ErrorKind::Data when it cannot follow.
  void apply(const core::Json& event);

  /// The event that is due, or none. `overdue`: the round's deadline has passed.
  std::optional<core::Json> decide(bool overdue) const;
  Verdict judge(const Submission& submission) const;

  Phase phase() const { return phase_; }
  int64_t round() const { return round_; }  ///< under way, or the next one
  bool evaluates_only() const { return kind_ == "evaluate"; }
  bool measures() const;  ///< sites measure the model that they receive in this round
  const std::set<std::string>& joined() const { return joined_; }
  bool is_away(const std::string& site) const { return away_.count(site) != 0; }
  bool has_left(const std::string& site) const { return left_.count(site) != 0; }
  /// Sites of the round, sorted.
  const std::vector<std::string>& asked() const { return asked_; }
  bool awaits(const std::string& site) const;
  /// Results of the round, by site.
  const std::map<std::string, Submission>& results() const { return results_; }
  const std::string& stop_reason() const { return stop_reason_; }
  /// Commits so far: {round, digest, elements, shares}.
  const std::vector<core::Json>& commits() const { return commits_; }
  const std::map<int64_t, EvalSums>& evaluations() const { return evaluations_; }

 private:
  void open(const core::Json& event);
  void close(const core::Json& event, bool enough);
  void next_round();
  std::optional<core::Json> decide_open() const;
  std::optional<core::Json> decide_close(bool overdue) const;
  bool lost_patience() const;
  core::Json open_event(const std::string& kind) const;
  void require(bool condition, const core::Json& event) const;

  FederationConfig config_;
  uint64_t seed_;
  Phase phase_ = Phase::Gathering;
  int64_t round_ = 0;
  std::string kind_ = "train";
  bool evaluated_last_ = false;
  int64_t skipped_in_a_row_ = 0;
  std::set<std::string> joined_;
  std::set<std::string> away_;
  std::set<std::string> left_;
  std::vector<std::string> asked_;
  std::map<std::string, Submission> results_;
  std::set<std::string> dropped_;
  std::vector<core::Json> commits_;
  std::map<int64_t, EvalSums> evaluations_;
  std::string stop_reason_;
};

/// `count` of the names, drawn without replacement by (seed, round); all of them when there are no
/// more. Sorted.
std::vector<std::string> draw_sites(const std::vector<std::string>& names,
                                    int64_t count,
                                    uint64_t seed,
                                    int64_t round);

}  // namespace kamerton::federation
