// SPDX-License-Identifier: Apache-2.0
// What Coordinator holds; private to src/federation. Behaviour is in coordinator*.cpp.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "kamerton/federation/codec.h"
#include "kamerton/federation/combine.h"
#include "kamerton/federation/coordinator.h"
#include "kamerton/federation/journal.h"
#include "kamerton/federation/site_noise.h"
#include "kamerton/federation/vector_file.h"
#include "kamerton/privacy/secure_server.h"

namespace kamerton::federation {

/// What combining a round found out, for rounds.jsonl.
struct CombineReport {
  int64_t elements = 0;  ///< of the new model file
  std::string digest;
  double update_norm = 0;
  std::optional<double> error;  ///< relative: cut off by the SVD, or made by average_factors
  std::vector<std::string> sites;
  std::vector<double> shares;
};

struct Coordinator::State {
  CoordinatorOptions options;
  const core::Clock& clock;
  mutable std::mutex mutex;
  Journal journal;
  RoundMachine machine;
  std::optional<Layout> layout;
  std::unique_ptr<Codec> codec;
  double last_progress_s = 0;
  double round_begin_s = 0;
  bool combining = false;
  std::map<std::string, int64_t> rounds_of;     ///< in how many a site's update was taken
  std::optional<privacy::SecureServer> secure;  ///< of the masked round under way
  /// What a site has done in the round under way that counted, or may count, as progress.
  struct Effort {
    int64_t round = -1;
    int64_t joins = 0;
    int64_t bytes = 0;    ///< received
    int64_t counted = 0;  ///< of these at the last sign of progress
  };
  /// A site that comes back again and again keeps no round open.
  static constexpr int64_t kJoinsOfRound = 2;
  std::map<std::string, Effort> efforts;  ///< by site
  /// By site: whoever writes its spooled update or judges it. Taken before `mutex`.
  std::map<std::string, std::mutex> upload_mutexes;

  State(CoordinatorOptions given, const core::Clock& time);

  /// Written, then applied. The caller holds the mutex.
  void record(const core::Json& event);
  /// What an event changes: also used to replay the journal.
  void apply(const core::Json& event);

  // coordinator_secure.cpp
  bool masks() const { return options.config.privacy.secure_aggregation; }
  /// Whether uploads are in their turn, where they are masked.
  bool takes_uploads() const {
    return !masks() || (secure.has_value() && secure->stage() == privacy::SecureStage::Uploads);
  }
  void apply_secure(const core::Json& event);
  void close_secure_uploads();
  uint32_t secure_id(const std::string& site) const;
  bool in_secure_round(const std::string& site) const;
  std::string secure_name(uint32_t id) const;
  core::Json secure_round_event() const;
  /// Opens, advances or gives up the masked part of the round; whether anything happened.
  bool advance_secure();
  /// Every site of the masked round has spoken in its stage, or has left the run.
  bool all_heard() const;
  /// So many have left that the masked round cannot succeed.
  bool hopeless() const;
  /// All that is needed to unmask is here.
  bool secure_ready() const;
  void note_progress() { last_progress_s = clock.now_s(); }
  bool overdue() const {
    return clock.now_s() - last_progress_s > options.config.cohort.deadline_s;
  }
  core::Json commit_event(const CombineReport& report, int64_t round) const;
  /// By the site that took part most often, where sites are hidden.
  SiteEpsilon spent() const;
  void load_layout();
  void require_site(const std::string& site) const;
  std::mutex& upload_mutex(const std::string& site);
  Effort& effort_of(const std::string& site);
  /// A sixteenth of an update is a sign of progress, and an update twice over is the last one: a
  /// site that trickles, or sends for ever, keeps no round open.
  void note_upload(const std::string& site, int64_t bytes);
  /// Throws unless the site owes a result of this round.
  void require_awaited(const std::string& site, int64_t round) const;
  /// Runs `body`, which works on the site's spooled file. A round that was closed meanwhile takes
  /// the file away: then that is the reason said.
  template <class Body>
  auto while_awaited(const std::string& site, int64_t round, const Body& body) {
    try {
      return body();
    } catch (const std::exception&) {
      const std::lock_guard lock(mutex);
      require_awaited(site, round);
      throw;
    }
  }
  /// Whether the spooled update is the one that is submitted, made durable; else it is dropped.
  bool keep_whole_update(const Submission& submission) const;
  std::filesystem::path folder(const char* part) const { return options.folder / part; }
  std::filesystem::path model_file(int64_t round) const;
  std::filesystem::path moment_file(const char* which, int64_t round) const;
  std::filesystem::path spool(int64_t round) const;
  std::filesystem::path spooled(const std::string& site, int64_t round) const;
  int64_t travels() const { return travelling(options.config, layout->total()); }
  int64_t encoded_bytes() const { return encoded_size(*codec, travels()); }
  ModelFile model_of(int64_t round) const;
  /// To be applied in order.
  std::vector<ModelFile> models_for(int64_t round) const;
  std::vector<Contribution> contributions() const;
  /// Names of the round's sites that have left the run.
  core::Json left_of_round() const;
  /// What has been spent so far: into the round's line, and in words.
  std::string add_privacy(core::Json& line, double record_epsilon) const;
  void write_round_line(const CombineReport* report, double seconds) const;
  void clean(int64_t round) const;
  void clean_spool(int64_t round) const;
};

/// Writes the model (and moments) of round + 1. Deterministic: may be repeated after a crash.
/// masks: what takes the masks off the sum, where there are any.
CombineReport combine_updates(const Coordinator::State& state,
                              const std::vector<Contribution>& contributions,
                              int64_t round,
                              const std::optional<privacy::MaskPlan>& masks);

}  // namespace kamerton::federation
