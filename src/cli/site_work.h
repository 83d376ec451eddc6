// SPDX-License-Identifier: Apache-2.0
// What a site does in a round, on the ranks of a group: take the model, measure it, train, encode
// the update. The same for simulated sites, which share a group one after the other, and for a site
// of its own.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kamerton/federation/coordinator.h"
#include "kamerton/federation/layout.h"
#include "kamerton/federation/submission.h"

#include "assemble.h"
#include "run_objective.h"
#include "site_privacy.h"
#include "site_state.h"

namespace kamerton::cli {

/// Whose data, and where its state is kept. The folder is seen by all ranks of the group.
struct SitePlace {
  std::string name;
  std::vector<std::string> train;
  std::vector<std::string> eval;  ///< empty: data.eval of the run
  std::filesystem::path folder;
  PrivacyLimits limits = {};
  int64_t rank = 0;  ///< of its adapters; 0: that of the run
};

/// The state that a round begins with, on disk here.
struct ReceivedModel {
  federation::ModelFile facts;
  std::filesystem::path file;
};

/// The run's configuration as sites carry it out: with ffa the adapters' A is frozen.
RunConfig site_config(RunConfig config);
/// Refuses what does not go together; ErrorKind::Config.
void validate_federation(const RunConfig& config);
/// Of all that every site must have alike: training settings and base model, not data or folders.
std::string common_digest(const RunConfig& config);

/// A model in the memory of a group. Member functions are collective over the group.
class Workplace {
 public:
  Workplace(const RunConfig& config, const comm::Group& ranks);
  ~Workplace();

  const federation::Layout& layout() const;
  /// Opens the site's data. Errors as data::TrainStream.
  void open(const SitePlace& place);
  /// A round's work, or what an earlier call left of it: the update lies at `update` when it
  /// returns (Task::Kind::Train), the submission is the same on every rank. Throws Declined when
  /// the site's privacy budget does not allow the round.
  federation::Submission work(const std::string& site,
                              const federation::Task& task,
                              const std::vector<ReceivedModel>& models,
                              const std::filesystem::path& update);
  /// What the site's last round has cost of its privacy, for the audit log: an array.
  const core::Json& spent(const std::string& site) const;
  /// Writes the model as a user takes it away: an adapter in PEFT's form, or a model folder.
  void write_result(const std::vector<ReceivedModel>& models, const std::filesystem::path& folder);
  /// "LlamaForCausalLM, 135M parameters, ..."
  std::string describe_model() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kamerton::cli
