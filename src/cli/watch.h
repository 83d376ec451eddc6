// SPDX-License-Identifier: Apache-2.0
// What shall not be forgotten: its loss before the run, at each evaluation, and when it is enough.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kamerton/train/event.h"

#include "phase.h"

namespace kamerton::cli {

class Watch {
 public:
  /// Opens the sets of config.watch.
  explicit Watch(const Run& run);

  bool empty() const { return sets_.empty(); }
  /// Whether a set's gate rolls back.
  bool rolls_back() const;
  /// Before training: what losses are compared with. Collective.
  void measure_start(const Run& run);
  /// Adds "watch/NAME/loss" and "watch/NAME/change" to `done`, and says so in the log. Collective.
  void measure(const Run& run, train::EvalDone& done);

  /// The gate that closed at the last measure.
  struct Breach {
    std::string text;
    bool rollback = false;
  };
  std::optional<Breach> breach() const;

 private:
  struct Set {
    const train::WatchConfig* config;
    data::EvalSet data;
    double start = 0;
    double now = 0;
  };
  double loss_of(const Run& run, const Set& set) const;

  std::vector<Set> sets_;
};

/// The best evaluation so far, on disk, for a gate that rolls back. Does nothing when there is
/// none.
class Best {
 public:
  Best(const Run& run, Phase& phase, optim::ShardedParameters& parameters, const Watch& watch);

  /// After an evaluation at which no gate closed: kept when its loss is the lowest so far.
  /// Collective.
  void consider(const train::EvalDone& done, const train::Progress& progress);
  /// Makes the best evaluation's state the present one; removes later checkpoints. False when there
  /// is none. Collective.
  bool roll_back(train::Snapshots& snapshots, train::Progress& progress);
  /// A resumed run knows what was best. Collective.
  void remember();

 private:
  std::filesystem::path folder_;
  const comm::Group& world_;
  std::optional<train::Snapshots> snapshots_;
  std::optional<double> loss_;
};

}  // namespace kamerton::cli
