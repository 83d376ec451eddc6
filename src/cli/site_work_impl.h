// SPDX-License-Identifier: Apache-2.0
// What Workplace holds; behaviour is in site_work.cpp (a round) and site_exchange.cpp (vectors).
#pragma once

#include <regex>
#include <unordered_map>

#include "kamerton/comm/group.h"
#include "kamerton/data/stream.h"
#include "kamerton/eval/evaluator.h"
#include "kamerton/federation/codec.h"
#include "kamerton/train/parts.h"

#include "site_correction.h"
#include "site_privacy.h"
#include "site_work.h"

namespace kamerton::cli {

/// A site whose data is open.
struct OpenSite {
  SitePlace place;
  SiteState state;
  std::unique_ptr<data::TrainStream> batches;
  std::optional<data::EvalSet> held_out;
  std::unique_ptr<RunObjective> objective;
  std::unique_ptr<SitePrivacy> privacy;
  int64_t rank = 0;           ///< of adapters, where it is below the run's; 0: the run's
  int64_t steps = 0;          ///< of a round
  int64_t stream_round = -1;  ///< the round whose end `batches` stands at
};

/// What a site did in a round, before it is encoded.
struct LocalWork {
  int64_t steps = 0;
  int64_t updates = 0;
  int64_t targets = 0;
  double loss = 0;
};

/// What an update is multiplied by, and the weight that goes with it.
struct UpdateScale {
  double values = 1;
  double weight = 1;
};

struct Workplace::Impl {
  RunConfig config;
  comm::Group ranks;
  mesh::Mesh mesh;
  text::TokenizerBundle bundle;
  Tuned tuned;
  federation::Layout layout;      ///< what travels
  federation::Layout everything;  ///< all that is trained
  std::unordered_map<std::string, const tensor::Parameter*> parameters_by_name;
  std::unique_ptr<model::WeightSource> weights;
  optim::ShardedParameters::Fill start;
  std::unique_ptr<optim::ShardedParameters> parameters;
  std::map<std::string, std::unique_ptr<OpenSite>> sites;
  size_t merged_stacks = 0;

  Impl(const RunConfig& run_config, const comm::Group& group);

  bool first_rank() const { return ranks.rank() == 0; }
  bool absolute() const {
    return federation::sends_adapters(config.federation, config.tuning.method == "lora");
  }
  bool stacks() const { return absolute() && config.federation.adapters == "stack"; }
  bool keeps_moments() const { return config.federation.local.optimizer_state == "keep"; }

  std::unique_ptr<OpenSite> open(const SitePlace& place);

  // site_exchange.cpp: between files and parameters. `before`: the round of the site's last state.
  void load(const federation::RangeFile& model, const OpenSite* site, int64_t before);
  void fill_slice(const optim::StateSlice& slice,
                  const federation::RangeFile& model,
                  const OpenSite* site,
                  int64_t before);
  /// x, as the round began with it.
  void fill_start(const std::string& name,
                  int64_t offset,
                  const federation::RangeFile& model,
                  at::Tensor out) const;
  /// Of a site with fewer ranks: rows of A and columns of B above them become zero, and stay so.
  void cut_rank(const OpenSite& site,
                const std::string& name,
                int64_t offset,
                at::Tensor values) const;
  void merge_stacks(const std::vector<ReceivedModel>& models);
  /// Differences (or whole adapters) of this rank's slices into the scratch file, and what stays at
  /// the site into its state. Returns this rank's sum of squares.
  double write_slices(const OpenSite& site,
                      const federation::Task& task,
                      int64_t before,
                      const federation::RangeFile& model,
                      int64_t updates,
                      federation::RangeFile& scratch);
  void write_control(const OpenSite& site,
                     const federation::Task& task,
                     int64_t before,
                     const federation::RangeFile& model,
                     int64_t at,
                     const at::Tensor& delta,
                     int64_t updates,
                     federation::RangeFile& scratch);
  void encode(const OpenSite& site,
              const federation::Task& task,
              int64_t before,
              const UpdateScale& scale,
              const federation::RangeFile& scratch,
              federation::RangeFile& update) const;

  // site_work.cpp
  LocalWork train(OpenSite& site,
                  const federation::Task& task,
                  int64_t before,
                  const federation::RangeFile& model);
  eval::LossReport measure(const OpenSite& site);
  /// One optimizer step, hiding records where the run does.
  train::StepReport step(OpenSite& site, train::Parts& run, int64_t number, int64_t update) const;
  RoundStart start_of(const OpenSite& site,
                      const federation::Task& task,
                      const std::string& model_digest,
                      int64_t before) const;
  /// By which an integer update is multiplied; 1 where sums are not weighted.
  double weight_of(const federation::Submission& submission) const;
  int64_t updates_before(const OpenSite& site, int64_t before) const;
  std::optional<federation::Submission> finished(const OpenSite& site,
                                                 const federation::Task& task,
                                                 const std::string& model_digest,
                                                 const std::filesystem::path& update) const;
  void write(const OpenSite& site,
             const federation::Task& task,
             int64_t before,
             const federation::RangeFile& model,
             int64_t updates,
             const std::filesystem::path& update_path,
             federation::Submission& submission);
  void restore_stream(OpenSite& site, int64_t before);
  std::string stream_state(const OpenSite& site) const;
  train::Parts parts(OpenSite& site);
};

}  // namespace kamerton::cli
