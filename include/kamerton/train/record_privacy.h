// SPDX-License-Identifier: Apache-2.0
// Steps that hide every single record: DP-SGD (arXiv 1607.00133) over all ranks of a run.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kamerton/comm/group.h"
#include "kamerton/privacy/accountant.h"
#include "kamerton/privacy/config.h"
#include "kamerton/privacy/secret.h"
#include "kamerton/train/step.h"

namespace kamerton::train {

/// What the accounting needs to know of a run.
struct PrivateRun {
  std::string name;         ///< of the run
  std::string fingerprint;  ///< of configuration and data: another one is another release
  int64_t records = 0;      ///< in one pass
  int64_t batch_rows = 0;   ///< records a step, over all ranks: the denominator of the mean
  int64_t total_steps = 0;
  int64_t rounds = 0;  ///< above 0: the steps come in so many rounds of a federation
};

/// A round of a federation at one site.
struct PrivateRound {
  std::string what;     ///< its entry in the ledger
  std::string binding;  ///< of all that its result depends on: another one has other noise
};

/// Poisson sampling (each record takes part in a step by a coin of its own, keyed by a secret of
/// the site): a step is a subsampled Gaussian release. Passes: a record takes part in at most one
/// step of a shuffled pass, hence a pass costs one Gaussian release and no amplification is
/// claimed; a step that reaches into the next pass leaves that pass's records out. Either way
/// releases are written into the data set's ledger before their first step, a pass's worth at a
/// time.
class RecordPrivacy {
 public:
  /// Opens ledger and key (rank 0), finds the noise, and refuses a run that the budget does not
  /// allow: ErrorKind::Permission; ErrorKind::Config when no noise is enough. Collective.
  RecordPrivacy(const privacy::RecordPrivacyConfig& config,
                const PrivateRun& run,
                const comm::Group& world);

  /// Of a run with rounds, before the steps of each: writes the round into the ledger, as a whole,
  /// and binds coins and noise to it. The same round again costs nothing and repeats its noise.
  /// Returns the epsilon that is spent with it. Throws ErrorKind::Permission, on all ranks, when
  /// the budget would be exceeded. Collective.
  double begin_round(const PrivateRound& round, const comm::Group& world);

  /// As train::run_step. Throws ErrorKind::Permission, on all ranks, when other runs have spent the
  /// budget in the meantime.
  StepReport run_step(Parts& parts, int64_t step, int64_t update_number, int64_t total_steps);

  double noise() const { return noise_; }
  /// One line for the run's header.
  const std::string& text() const { return text_; }

 private:
  /// An entry of the ledger: what a stretch of steps releases.
  struct Stretch {
    int64_t number = 0;  ///< from 0
    std::string what;
    privacy::NoisyRelease release;
  };
  /// An example of a step on this rank; what does not count keeps the ranks in step.
  struct Turn {
    data::Batch example;
    bool counts = false;
  };
  bool draws() const { return config_.sampling == "poisson"; }
  privacy::NoisyRelease whole_run(double noise) const;
  Stretch stretch_of(int64_t step) const;
  void spend(const comm::Group& world, const Stretch& stretch);
  std::vector<Turn> turns_of(Parts& parts, int64_t step) const;
  std::vector<int64_t> drawn_records(int64_t step) const;
  std::string ledger_path() const;

  privacy::RecordPrivacyConfig config_;
  PrivateRun run_;
  privacy::Secret run_key_;
  privacy::Secret key_;  ///< of coins and noise: the run's, or its round's
  double noise_ = 0;
  int64_t spent_ = 0;  ///< stretches
  std::string text_;
};

/// The examples of a batch, one each, in order. (The batch's own rows, without packing.)
std::vector<data::Batch> split_examples(const data::Batch& batch);

}  // namespace kamerton::train
