// SPDX-License-Identifier: Apache-2.0
// kamerton federate site: one site of a run across a network. An MPI job of any size: every rank
// fetches its part of the model and sends its part of the update over its own connection.
#include <chrono>
#include <ctime>
#include <filesystem>
#include <thread>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/core/log.h"
#include "kamerton/federation/codec.h"
#include "kamerton/federation/fault_point.h"
#include "kamerton/federation/secure_site.h"
#include "kamerton/federation/site_policy.h"
#include "kamerton/mesh/threads.h"
#include "kamerton/privacy/audit_log.h"
#include "kamerton/privacy/certificate.h"
#include "kamerton/storage/filesystem.h"
#include "kamerton/train/signals.h"
#include "kamerton/transport/client.h"
#include "kamerton/transport/gate.h"

#include "command.h"
#include "on_first_rank.h"
#include "run_file.h"
#include "site_masks.h"
#include "site_work.h"
#include "task_json.h"

namespace kamerton::cli {
namespace {

namespace fs = std::filesystem;
using core::Error;
using core::ErrorKind;
using federation::RangeFile;
using federation::Task;

constexpr int kMostResends = 3;

struct SiteOptions {
  std::string coordinator;
  std::string coordinator_name;
  std::string identity;
  std::string policy;
  double poll_s = 1;
  double give_up_s = 600;
};

class NetworkSite {
 public:
  NetworkSite(const RunConfig& config, const SiteOptions& options, const comm::Group& ranks)
      : config_(config),
        options_(options),
        ranks_(ranks),
        folder_(config.folder() / "site"),
        workplace_(config, ranks),
        client_({.address = options.coordinator,
                 .identity = {options.identity},
                 .coordinator = options.coordinator_name,
                 .admit = transport::admit_coordinator(
                     transport::Identity{options.identity}.authority()),
                 .give_up_s = options.give_up_s}) {
    on_first_rank(ranks_, [&] {
      storage::posix_filesystem().make_directories(folder_ / "models");
      audit_ =
          std::make_unique<privacy::AuditLog>(folder_ / "audit.jsonl", identity_key(), own_name());
      try {
        enter();
      } catch (const Error& error) {
        account(privacy::audit::kRefusal, {{"run", config_.name}, {"what", error.what()}});
        throw;
      }
    });
    name_ = ranks_.broadcast(name_, 0);
    workplace_.open({name_, config_.data.train, config_.data.eval, folder_, limits()});
    core::log_info(fmt::format("site {}: {}; {} parameters travel, {} bytes a round",
                               name_,
                               workplace_.describe_model(),
                               workplace_.layout().total(),
                               update_bytes()));
  }

  /// Rounds until the run is over; false when a signal asked to stop.
  bool run() {
    for (;;) {
      core::Json order;
      on_first_rank(ranks_, [&] { order = task_to_json(wait_for_task(), {}); });
      order = core::parse_json(ranks_.broadcast(order.dump(), 0), "task");
      const Task task = task_from_json(order);
      if (task.kind == Task::Kind::Wait) {
        return false;
      }
      federation::fault_point("site.received");
      const std::vector<ReceivedModel> models = fetch(task);
      if (task.kind == Task::Kind::Done) {
        workplace_.write_result(models, config_.folder());
        core::log_info("the run is over: " + task.text);
        return true;
      }
      carry_out(task, models);
    }
  }

 private:
  /// What the policy says of the run, then what the coordinator says of the site. Rank 0.
  void enter() {
    policy_ = federation::load_policy(options_.policy);
    check_policy(policy_,
                 {config_.name, config_.federation, update_bytes(), config_.privacy.enabled()});
    account(privacy::audit::kPolicy,
            {{"run", config_.name}, {"policy", options_.policy}, {"decision", "allowed"}});
    name_ = client_.join(
        {"", config_.name, common_digest(config_), workplace_.layout().to_json().dump()});
    account(privacy::audit::kJoin, {{"run", config_.name}, {"coordinator", options_.coordinator}});
  }

  std::string own_name() const {
    return privacy::read_certificate(
               storage::posix_filesystem().read_file(
                   transport::Identity{options_.identity}.certificate(), 1 << 16))
        .name;
  }

  /// Into the site's audit log. Rank 0.
  void account(std::string_view event, const core::Json& detail) { audit_->append(event, detail); }

  int64_t update_bytes() const {
    const int64_t elements = workplace_.layout().total();
    return federation::encoded_size(*federation::make_codec(config_.federation, elements, 0),
                                    federation::travelling(config_.federation, elements));
  }

  /// The policy's budgets, which rank 0 has read.
  PrivacyLimits limits() const {
    return {.record_epsilon = ranks_.max(policy_.max_record_epsilon),
            .site_epsilon = ranks_.max(policy_.max_site_epsilon),
            .delta = ranks_.max(ranks_.rank() == 0 ? policy_.max_delta : 0.0)};
  }

  bool within_hours() const {
    const std::time_t now = std::time(nullptr);
    std::tm local = {};
    localtime_r(&now, &local);
    return federation::allows_hour(policy_, local.tm_hour);
  }

  /// Asks until there is something to do; Wait when a signal asked to stop. Rank 0.
  Task wait_for_task() {
    bool said = false;
    while (train::stop_signal() == 0) {
      if (!within_hours() && !std::exchange(said, true)) {
        core::log_info("it is outside the policy's hours " + policy_.hours + ": the site waits");
      }
      if (within_hours()) {
        Task task = client_.task();
        if (task.kind != Task::Kind::Wait) {
          secure_round_ = task.secure_round;
          if (!task.audit_head.empty()) {
            account(privacy::audit::kHeadSeen,
                    privacy::head_seen("coordinator of " + config_.name, task.audit_head));
          }
          return task;
        }
        help_after_restart(task);
      }
      std::this_thread::sleep_for(std::chrono::duration<double>(options_.poll_s));
    }
    return {};
  }

  /// A site that came back between its upload and the unmasking still helps.
  void help_after_restart(const Task& task) {
    if (task.secure_round.empty() || helped_ == task.round ||
        !federation::SecureSite::knows(folder_, task.secure_round)) {
      return;
    }
    federation::SecureSite masked(folder_, task.secure_round, name_, identity_key(), {});
    help_unmask(task, masked);
    helped_ = task.round;
  }

  /// Every rank its part; rank 0 compares the digest.
  std::vector<ReceivedModel> fetch(const Task& task) {
    std::vector<ReceivedModel> models;
    for (const federation::ModelFile& model : task.models) {
      const fs::path path = folder_ / "models" / fmt::format("round-{:06d}.f32", model.round);
      if (model.elements == 0) {
        continue;
      }
      models.push_back({model, path});
      if (ranks_.max(static_cast<int64_t>(fs::exists(path))) != 0) {
        continue;
      }
      const fs::path part = path.string() + ".part";
      const int64_t bytes = 4 * model.elements;
      on_first_rank(ranks_, [&] {
        fs::remove(part);
        RangeFile::open_or_create(part, bytes);
      });
      RangeFile file = RangeFile::open_or_create(part, bytes);
      const auto [begin, end] =
          federation::Coordinator::shard_range(bytes, ranks_.rank(), ranks_.size());
      client_.download(model.round, begin, end, file);
      ranks_.barrier();
      on_first_rank(ranks_, [&] { accept_model(part, path, model); });
    }
    federation::fault_point("site.downloaded");
    return models;
  }

  void accept_model(const fs::path& part,
                    const fs::path& path,
                    const federation::ModelFile& model) {
    if (federation::file_digest(part) != model.digest) {
      fs::remove(part);
      throw Error(ErrorKind::Data,
                  {.where = "cli.site",
                   .what = "the model that arrived is not the one that was announced",
                   .got = fmt::format("round {}", model.round)});
    }
    storage::posix_filesystem().rename(part, path);
    account(privacy::audit::kModelReceived, {{"round", model.round}, {"model", model.digest}});
    const bool needs_all = config_.federation.adapters == "stack";
    for (const std::string& name : storage::posix_filesystem().list(path.parent_path())) {
      if (!needs_all && name != path.filename().string()) {
        fs::remove(path.parent_path() / name);
      }
    }
  }

  void carry_out(const Task& task, const std::vector<ReceivedModel>& models) {
    fs::path update = folder_ / "update";
    federation::Submission result;
    try {
      result = workplace_.work(name_, task, models, update);
    } catch (const Declined& refusal) {
      decline(task, refusal.what());
      return;
    }
    on_first_rank(ranks_, [&] {
      for (const core::Json& cost : workplace_.spent(name_)) {
        account(privacy::audit::kLedger, cost);
      }
    });
    std::unique_ptr<federation::SecureSite> masked;  // rank 0
    if (task.kind == Task::Kind::Train && config_.federation.privacy.secure_aggregation) {
      if (!mask(task, models, update, result, masked)) {
        core::log_warning(fmt::format("round {} goes on without this site", task.round));
        return;
      }
      update = folder_ / "update.masked";
    }
    deliver(task, update, result);
    on_first_rank(ranks_, [&] {
      if (masked != nullptr) {
        help_unmask(task, *masked);
        helped_ = task.round;
      }
    });
  }

  /// Out of the run's rounds for good; the result is fetched when it is there.
  void decline(const Task& task, const std::string& why) {
    on_first_rank(ranks_, [&] {
      core::log_warning(
          fmt::format("round {}: this site leaves the run's rounds: {}", task.round, why));
      account(privacy::audit::kRefusal, {{"round", task.round}, {"what", why}});
      client_.leave("its privacy budget is spent");
    });
  }

  /// Asks until there is an answer; nullopt when the round goes on without this site.
  std::optional<std::string> ask(int64_t round,
                                 federation::SecureStep step,
                                 const std::string& message) {
    try {
      for (;;) {
        if (auto answer = client_.secure(round, step, message)) {
          return answer;
        }
        std::this_thread::sleep_for(std::chrono::duration<double>(options_.poll_s / 2));
      }
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::Permission && error.kind() != ErrorKind::Data) {
        throw;
      }
      core::log_warning(error.what());
      return std::nullopt;
    }
  }

  /// Keys and shares with the other sites, then the masked update; its digest goes into `result`.
  bool mask(const Task& task,
            const std::vector<ReceivedModel>& models,
            const fs::path& update,
            federation::Submission& result,
            std::unique_ptr<federation::SecureSite>& masked) {
    std::string plan;
    on_first_rank(ranks_, [&] {
      const auto model = federation::digest_from_hex(
          models.empty() ? "" : federation::file_digest(models.back().file));
      require_survivors(secure_round_, config_.federation);
      masked = std::make_unique<federation::SecureSite>(
          folder_, secure_round_, name_, identity_key(), model);
      const auto book = ask(task.round, federation::SecureStep::Advert, masked->advert());
      if (!book.has_value()) {
        return;
      }
      federation::fault_point("site.secure_keys");
      const auto delivery = ask(task.round, federation::SecureStep::Shares, masked->shares(*book));
      if (!delivery.has_value()) {
        return;
      }
      federation::fault_point("site.secure_shares");
      masked->receive(*delivery);
      plan = masked->masks(federation::digest_from_hex(result.digest)).encode();
    });
    plan = ranks_.broadcast(plan, 0);
    if (plan.empty()) {
      return false;
    }
    const fs::path to = folder_ / "update.masked";
    mask_update(update, to, privacy::MaskPlan::decode(plan), ranks_);
    result.digest =
        ranks_.broadcast(ranks_.rank() == 0 ? federation::file_digest(to) : std::string(), 0);
    return true;
  }

  void help_unmask(const Task& task, federation::SecureSite& masked) {
    using federation::SecureStep;
    const auto survivors = ask(task.round, SecureStep::Survivors, "");
    if (!survivors.has_value()) {
      return;
    }
    federation::fault_point("site.secure_survivors");
    const auto votes = ask(task.round, SecureStep::Vote, masked.vote(*survivors));
    if (votes.has_value()) {
      federation::fault_point("site.secure_votes");
      account(privacy::audit::kUnmask, {{"round", task.round}});
      ask(task.round, SecureStep::Reveal, masked.reveal(*votes));
    }
  }

  privacy::SigningKey identity_key() const {
    return privacy::read_key_file(transport::Identity{options_.identity}.key());
  }

  void deliver(const Task& task, const fs::path& update, const federation::Submission& result) {
    for (int attempt = 0; attempt < kMostResends; ++attempt) {
      if (task.kind == Task::Kind::Train && !send(task, update, result.bytes)) {
        core::log_warning(fmt::format("round {} was closed without this site", task.round));
        return;
      }
      federation::fault_point("site.uploaded");
      bool again = false;
      on_first_rank(ranks_, [&] { again = submit(result); });
      if (!ranks_.any(again)) {
        return;
      }
    }
    throw Error(ErrorKind::Comm,
                {.where = "cli.site",
                 .what = "the update arrives damaged time after time",
                 .got = fmt::format("{} attempts", kMostResends)});
  }

  /// False when the round does not take the update any more.
  bool send(const Task& task, const fs::path& path, int64_t bytes) {
    const RangeFile update = RangeFile::open(path, bytes);
    bool refused = false;
    try {
      client_.upload(task.round, ranks_.rank(), ranks_.size(), update);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::Permission) {
        throw;
      }
      refused = true;
    }
    return !ranks_.any(refused);
  }

  bool submit(const federation::Submission& result) {
    if (result.bytes > 0) {
      account(privacy::audit::kUpdateSent,
              {{"round", result.round},
               {"update", result.digest},
               {"bytes", result.bytes},
               {"masked", config_.federation.privacy.secure_aggregation}});
    }
    const federation::Receipt receipt =
        client_.submit(config_.name, result, privacy::head_text(audit_->head()));
    federation::fault_point("site.acknowledged");
    if (receipt.verdict == federation::Verdict::Conflict) {
      throw Error(ErrorKind::Permission,
                  {.where = "cli.site",
                   .what = "the coordinator has another result of this round from this site",
                   .got = fmt::format("round {}", result.round),
                   .hint = "is the site running twice?"});
    }
    if (result.bytes == 0 && result.targets == 0) {
      core::log_info(fmt::format("round {}: evaluated", result.round));
      return receipt.send_again;
    }
    core::log_info(fmt::format("round {}: loss {:.4f}, {} targets, sent {} bytes{}",
                               result.round,
                               result.train_loss,
                               result.targets,
                               result.bytes,
                               receipt.verdict == federation::Verdict::Late ? " (too late)" : ""));
    return receipt.send_again;
  }

  const RunConfig& config_;
  SiteOptions options_;
  const comm::Group& ranks_;
  fs::path folder_;
  Workplace workplace_;
  transport::Client client_;
  federation::SitePolicy policy_;
  std::string name_;
  std::unique_ptr<privacy::AuditLog> audit_;  ///< rank 0
  std::string secure_round_;                  ///< of the task under way; rank 0
  int64_t helped_ = -1;                       ///< the last round that this site helped to unmask
};

int run_site(const po::variables_map& arguments, comm::Session* session) {
  static const Command self = federate_site_command();
  const comm::Group& world = session->world();
  const RunConfig config = federated_run(arguments, self);
  SiteOptions options;
  options.coordinator = required(arguments, "coordinator", self);
  options.identity = required(arguments, "identity", self);
  options.coordinator_name = value_or<std::string>(arguments, "coordinator-name", "coordinator");
  options.policy = value_or<std::string>(
      arguments, "policy", (fs::path(options.identity) / "policy.yaml").string());
  options.poll_s = value_or<double>(arguments, "poll", 1.0);
  options.give_up_s = value_or<double>(arguments, "give-up", 600.0);
  mesh::choose_threads(session->topology());
  train::catch_stop_signals();
  NetworkSite site(config, options, world);
  if (!site.run()) {
    core::log_info("stopped by a signal; start it again to go on");
    return core::exit_code(ErrorKind::Preempted);
  }
  return 0;
}

}  // namespace

Command federate_site_command() {
  return {.name = "federate site",
          .summary = "take part in a federated run with this site's data",
          .usage =
              "kamerton federate site RUN.yaml --coordinator HOST:PORT --identity DIR "
              "[--policy FILE] [--set KEY=VALUE]...",
          .description =
              "data.train and data.eval are this site's files; all else must be as at the other "
              "sites. Nothing is done without a policy file.\nStarted again after a crash it goes "
              "on; a finished update is sent, not made again.\n\nExample:\n"
              "  mpirun -np 2 kamerton federate site configs/recipes/federated.yaml --coordinator "
              "hub.example.org:7443 \\\n"
              "    --identity federation/north --set data.train=[tickets.jsonl] --set "
              "output=runs/north",
          .needs_ranks = true,
          .add_options =
              [](po::options_description& options, po::positional_options_description& positional) {
                add_run_file(options, positional);
                options.add_options()("coordinator", po::value<std::string>(), "HOST:PORT")(
                    "coordinator-name",
                    po::value<std::string>(),
                    "the name in its certificate; default: coordinator")(
                    "identity", po::value<std::string>(), "folder that federate join made")(
                    "policy",
                    po::value<std::string>(),
                    "what this site allows; default: IDENTITY/policy.yaml")(
                    "poll", po::value<double>(), "seconds between two questions; 1")(
                    "give-up",
                    po::value<double>(),
                    "seconds without an answer after which the site ends with code 76; 600");
              },
          .run = run_site};
}

}  // namespace kamerton::cli
