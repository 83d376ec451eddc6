// SPDX-License-Identifier: Apache-2.0
// The coordinator without its network: rounds, journal, received updates, models. A simulation
// calls it directly; the gRPC service calls it for sites across a WAN.
//
//   <folder>/journal          every decision, written before anyone is told
//   <folder>/layout.json      what is exchanged, from the first site that joined
//   <folder>/models/round-N.f32   the state that round N begins with
//   <folder>/server/          the server optimizer's moments
//   <folder>/spool/round-N/   encoded updates as they arrive
//   <folder>/rounds.jsonl     a line a round for people and plots
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kamerton/core/clock.h"
#include "kamerton/core/json.h"
#include "kamerton/federation/config.h"
#include "kamerton/federation/layout.h"
#include "kamerton/federation/round_machine.h"
#include "kamerton/federation/secure_site.h"
#include "kamerton/federation/submission.h"
#include "kamerton/privacy/secure_round.h"

namespace kamerton::federation {

struct CoordinatorOptions {
  std::filesystem::path folder;
  std::string run;     ///< the run's name; sites must say the same
  std::string digest;  ///< of what all sites must agree on: configuration and base model
  FederationConfig config;
  bool lora = false;
  uint64_t seed = 42;
  /// Number and key of a site, for masked rounds.
  std::function<privacy::SecureSite(const std::string&)> member = {};
  /// Told of every event once it is in the journal (not of those found there).
  std::function<void(const core::Json&)> on_event = {};
};

/// What a site offers when it joins.
struct JoinRequest {
  std::string site;
  std::string run;
  std::string digest;
  std::string layout_json;
};

/// The state that a round begins with: a file of fp32.
struct ModelFile {
  int64_t round = 0;
  int64_t elements = 0;        ///< 0: the start, nothing to download
  std::string digest;          ///< of the file
  std::vector<double> shares;  ///< adapters stack: what each of the stacked adapters counts
};

struct Task {
  enum class Kind { Wait, Train, Evaluate, Done };
  Kind kind = Kind::Wait;
  int64_t round = 0;
  bool measure = false;           ///< measure the received model before training
  std::vector<ModelFile> models;  ///< to be applied in order: the last one, or all stacks
  std::string text;               ///< Done: why
  std::string secure_round = {};  ///< of the masked round that the site is in, also while it waits
  std::string audit_head = {};    ///< the end of the coordinator's audit log; across a network
};

/// What became of a submission, for the site.
struct Receipt {
  Verdict verdict = Verdict::Accept;
  bool send_again = false;  ///< the bytes did not match their digest
};

/// Member functions may be called from any thread. Errors: Permission for a site or round that may
/// not do this, Data for what cannot be right, Io.
class Coordinator {
 public:
  /// Opens or resumes the run in the folder.
  Coordinator(CoordinatorOptions options, const core::Clock& clock);
  ~Coordinator();

  /// Idempotent. The first one fixes the layout; others must bring the same.
  void join(const JoinRequest& request);
  void leave(const std::string& site, const std::string& reason);
  Task task(const std::string& site);

  /// Path of the state that a round begins with.
  std::filesystem::path model_path(int64_t round) const;
  int64_t update_bytes() const;

  /// A shard is bytes [begin, end) of the encoded update, shard `index` of `count`.
  static std::pair<int64_t, int64_t> shard_range(int64_t bytes, int64_t index, int64_t count);
  /// Bytes of the shard that are here already.
  int64_t received(const std::string& site, int64_t round, int64_t shard, int64_t shards) const;
  /// The next bytes of a shard; `offset` is what received() says. Returns the new offset.
  int64_t receive(const std::string& site,
                  int64_t round,
                  int64_t shard,
                  int64_t shards,
                  int64_t offset,
                  std::span<const std::byte> bytes);
  Receipt submit(const Submission& submission);
  /// A step of a masked round; see AskSecure.
  std::optional<std::string> secure(const std::string& site,
                                    int64_t round,
                                    SecureStep step,
                                    std::string_view message);

  /// Does what is due: opens and closes rounds, combines, stops. Returns whether anything happened.
  bool tick();
  bool stopped() const;
  std::string stop_reason() const;
  /// Rounds, sites, phase, losses: for `federate status` and for reports.
  core::Json status() const;
  const Layout& layout() const;  ///< after the first join
  const FederationConfig& config() const;

  struct State;  ///< for the rest of this module

 private:
  std::unique_ptr<State> state_;
};

}  // namespace kamerton::federation
