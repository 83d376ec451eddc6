// SPDX-License-Identifier: Apache-2.0
// kamerton federate simulate: all sites in one MPI job. Groups of ranks work on the sites in turn;
// rank 0 is the coordinator, too, with the same rounds, files and arithmetic as across a WAN.
#include <algorithm>
#include <filesystem>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/clock.h"
#include "kamerton/core/error.h"
#include "kamerton/core/log.h"
#include "kamerton/federation/coordinator.h"
#include "kamerton/federation/partition.h"
#include "kamerton/federation/secure_site.h"
#include "kamerton/federation/vector_file.h"
#include "kamerton/mesh/threads.h"
#include "kamerton/privacy/keys.h"
#include "kamerton/storage/digest.h"
#include "kamerton/storage/filesystem.h"
#include "kamerton/train/signals.h"

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
using core::Json;
using federation::Task;

std::vector<federation::SiteConfig> sites_of(const RunConfig& config, const comm::Group& world) {
  if (config.federation.partition.kind != "none") {
    const fs::path folder = config.folder() / "data";
    std::vector<federation::SiteConfig> sites;
    on_first_rank(world, [&] {
      sites = federation::write_partition(config.federation.partition,
                                          config.data.train,
                                          folder,
                                          static_cast<uint64_t>(config.train.seed));
    });
    sites.resize(static_cast<size_t>(config.federation.partition.sites));
    for (size_t i = 0; i < sites.size(); ++i) {
      const std::string name = fmt::format("site-{:03d}", i);
      sites[i] = {name, {(folder / (name + ".jsonl")).string()}, {}};
    }
    return sites;
  }
  if (config.federation.sites.empty()) {
    throw Error(ErrorKind::Config,
                {.where = "cli.federate",
                 .what = "there are no sites",
                 .hint = "federation.sites with a name and files each, or federation.partition"});
  }
  return config.federation.sites;
}

/// One group of ranks_per_site ranks a color.
comm::Group split_world(const RunConfig& config, const comm::Group& world, size_t sites) {
  const auto each = static_cast<int>(config.federation.ranks_per_site);
  if (world.size() % each != 0) {
    throw Error(ErrorKind::Config,
                {.where = "cli.federate",
                 .what = "the ranks do not make whole groups",
                 .got = fmt::format("{} ranks, federation.ranks_per_site = {}", world.size(), each),
                 .hint = fmt::format("mpirun -np {}", each)});
  }
  if (world.size() / each > static_cast<int>(sites)) {
    throw Error(ErrorKind::Config,
                {.where = "cli.federate",
                 .what = "more groups of ranks than sites",
                 .got = fmt::format("{} groups, {} sites", world.size() / each, sites),
                 .hint = fmt::format("federation.ranks_per_site = {}",
                                     world.size() / static_cast<int>(sites))});
  }
  return world.split(world.rank() / each, world.rank(), "site");
}

/// A simulation on one rank's view.
class Simulation {
 public:
  Simulation(const RunConfig& config, const comm::Group& world)
      : config_(config),
        world_(world),
        sites_(sites_of(config, world)),
        group_(split_world(config, world, sites_.size())),
        groups_(world.size() / static_cast<int>(config.federation.ranks_per_site)),
        color_(world.rank() / static_cast<int>(config.federation.ranks_per_site)),
        workplace_(config, group_) {
    for (size_t i = 0; i < sites_.size(); ++i) {
      if (mine(i)) {
        workplace_.open({sites_[i].name,
                         sites_[i].train,
                         sites_[i].eval,
                         config.folder() / "sites" / sites_[i].name,
                         {},
                         sites_[i].rank});
      }
    }
    on_first_rank(world_, [&] { open_coordinator(); });
  }

  std::string header() const {
    return fmt::format("{} sites on {} group(s) of {} rank(s); {}; {} parameters travel",
                       sites_.size(),
                       groups_,
                       group_.size(),
                       workplace_.describe_model(),
                       workplace_.layout().total());
  }

  /// Rounds until the end; false when a signal asked to stop.
  bool run() {
    for (;;) {
      Json order;
      on_first_rank(world_, [&] { order = next_order(); });
      order = core::parse_json(world_.broadcast(order.dump(), 0), "order");
      const Task task = task_from_json(order);
      if (task.kind == Task::Kind::Done) {
        workplace_done(task);
        return true;
      }
      if (world_.max(static_cast<int64_t>(train::stop_signal())) != 0) {
        return false;
      }
      carry_out(task, order["asked"].get<std::vector<std::string>>());
    }
  }

 private:
  bool mine(size_t site) const { return static_cast<int>(site) % groups_ == color_; }

  void open_coordinator() {
    federation::FederationConfig federation = config_.federation;
    federation.cohort.deadline_s = 1e12;  // nobody can be late here
    federation.cohort.start_sites = static_cast<int64_t>(sites_.size());
    coordinator_ = std::make_unique<federation::Coordinator>(
        federation::CoordinatorOptions{
            .folder = config_.folder() / "coordinator",
            .run = config_.name,
            .digest = common_digest(config_),
            .config = federation,
            .lora = config_.tuning.method == "lora",
            .seed = static_cast<uint64_t>(config_.train.seed),
            .member = [this](const std::string& name) { return member(name); }},
        clock_);
    const std::string layout = workplace_.layout().to_json().dump();
    for (const federation::SiteConfig& site : sites_) {
      coordinator_->join({site.name, config_.name, common_digest(config_), layout});
    }
  }

  Json next_order() {
    do {
      while (coordinator_->tick()) {
      }
    } while (nobody_works() && unmask_after_restart());
    std::vector<std::string> asked;
    Task task;
    for (const federation::SiteConfig& site : sites_) {
      const Task own = coordinator_->task(site.name);
      if (own.kind != Task::Kind::Wait) {
        task = own;
        asked.push_back(site.name);
      }
    }
    if (task.kind == Task::Kind::Wait) {
      throw Error(ErrorKind::NoProgress,
                  {.where = "cli.federate",
                   .what = "no site has anything to do",
                   .got = coordinator_->status().dump()});
    }
    return task_to_json(task, asked);
  }

  bool nobody_works() const {
    return std::all_of(sites_.begin(), sites_.end(), [&](const federation::SiteConfig& site) {
      return coordinator_->task(site.name).kind == Task::Kind::Wait;
    });
  }

  std::vector<ReceivedModel> received(const Task& task) const {
    std::vector<ReceivedModel> models;
    for (const federation::ModelFile& model : task.models) {
      if (model.elements > 0) {
        models.push_back({model,
                          config_.folder() / "coordinator" / "models" /
                              fmt::format("round-{:06d}.f32", model.round)});
      }
    }
    return models;
  }

  fs::path update_path(const std::string& site, int64_t round) const {
    return config_.folder() / "coordinator" / "spool" / fmt::format("round-{:06d}", round) /
           (site + ".update");
  }

  /// Every group works on its sites of the round; rank 0 takes the results.
  void carry_out(const Task& task, const std::vector<std::string>& asked) {
    const std::vector<ReceivedModel> models = received(task);
    on_first_rank(world_, [&] {
      storage::posix_filesystem().make_directories(update_path("x", task.round).parent_path());
    });
    Json results = Json::array();
    for (size_t i = 0; i < sites_.size(); ++i) {
      const std::string& name = sites_[i].name;
      if (mine(i) && std::find(asked.begin(), asked.end(), name) != asked.end()) {
        results.push_back(result_of(name, task, models));
      }
    }
    const bool masked =
        task.kind == Task::Kind::Train && config_.federation.privacy.secure_aggregation;
    const bool speaks = group_.rank() == 0;
    const auto all = world_.all_gather(std::string_view(speaks ? results.dump() : "[]"));
    on_first_rank(world_, [&] {
      std::vector<federation::Submission> submissions;
      for (const std::string& text : all) {
        for (const Json& result : core::parse_json(text, "results")) {
          if (core::json_find(result, "declined") != nullptr) {
            coordinator_->leave(result["site"].get<std::string>(), "its privacy budget is spent");
          } else {
            submissions.push_back(federation::Submission::from_json(result, "results"));
          }
        }
      }
      if (masked) {
        while (coordinator_->tick()) {  // too many may have left
        }
        if (!submissions.empty() &&
            coordinator_->task(submissions.front().site).round == task.round) {
          masked_round(task, models, submissions);
        }
        return;
      }
      for (const federation::Submission& submission : submissions) {
        coordinator_->submit(submission);
      }
    });
  }

  /// A site's submission, or that it does not take part. Collective over its group.
  Json result_of(const std::string& name,
                 const Task& task,
                 const std::vector<ReceivedModel>& models) {
    try {
      return workplace_.work(name, task, models, work_path(name, task.round)).to_json();
    } catch (const Declined& refusal) {
      core::log_warning(fmt::format(
          "round {}: {} leaves the run's rounds: {}", task.round, name, refusal.what()));
      return {{"site", name}, {"declined", true}};
    }
  }

  /// Where a site leaves its update: with masks a plain one never lies at the coordinator.
  fs::path work_path(const std::string& site, int64_t round) const {
    return config_.federation.privacy.secure_aggregation
               ? config_.folder() / "sites" / site / "update"
               : update_path(site, round);
  }

  /// The key of a simulated site.
  privacy::SigningKey key_of(const std::string& site) const {
    const storage::Digest seed =
        storage::digest_of(fmt::format("simulated identity {} {}", site, config_.train.seed));
    return privacy::SigningKey(privacy::Secret(std::span<const uint8_t, 32>(seed)));
  }

  privacy::SecureSite member(const std::string& name) const {
    for (size_t i = 0; i < sites_.size(); ++i) {
      if (sites_[i].name == name) {
        return {static_cast<uint32_t>(i + 1), name, key_of(name).public_key()};
      }
    }
    throw Error(ErrorKind::Internal,
                {.where = "cli.federate", .what = "no such site", .got = name});
  }

  /// What sites and coordinator say to each other in a masked round, in one process. Rank 0.
  void masked_round(const Task& task,
                    const std::vector<ReceivedModel>& models,
                    std::vector<federation::Submission>& submissions) {
    using federation::SecureStep;
    const auto model = federation::digest_from_hex(
        models.empty() ? "" : federation::file_digest(models.back().file));
    std::vector<federation::SecureSite> sites;
    std::vector<std::string> messages;
    std::vector<std::string> names;
    for (const federation::Submission& submission : submissions) {
      const std::string& name = submission.site;
      names.push_back(name);
      sites.emplace_back(config_.folder() / "sites" / name,
                         coordinator_->task(name).secure_round,
                         name,
                         key_of(name),
                         model);
      messages.push_back(sites.back().advert());
    }
    // All speak, the coordinator closes the stage, all hear the answer.
    const auto exchange = [&](SecureStep step, const auto& next) {
      for (size_t i = 0; i < sites.size(); ++i) {
        coordinator_->secure(submissions[i].site, task.round, step, messages[i]);
      }
      coordinator_->tick();
      for (size_t i = 0; i < sites.size(); ++i) {
        messages[i] =
            next(i, *coordinator_->secure(submissions[i].site, task.round, step, messages[i]));
      }
    };
    exchange(SecureStep::Advert,
             [&](size_t i, const std::string& book) { return sites[i].shares(book); });
    exchange(SecureStep::Shares, [&](size_t i, const std::string& delivery) {
      sites[i].receive(delivery);
      upload_masked(task, sites[i], submissions[i]);
      return std::string();
    });
    coordinator_->tick();  // closes the round
    unmask(task.round, sites, names);
  }

  /// From the survivors' list to the reveals. Rank 0.
  void unmask(int64_t round,
              std::vector<federation::SecureSite>& sites,
              const std::vector<std::string>& names) {
    using federation::SecureStep;
    std::vector<std::string> messages;
    for (size_t i = 0; i < sites.size(); ++i) {
      const auto survivors = coordinator_->secure(names[i], round, SecureStep::Survivors, "");
      if (!survivors.has_value()) {
        return;  // others have not uploaded yet
      }
      messages.push_back(sites[i].vote(*survivors));
      coordinator_->secure(names[i], round, SecureStep::Vote, messages[i]);
    }
    coordinator_->tick();
    for (size_t i = 0; i < sites.size(); ++i) {
      const auto votes = coordinator_->secure(names[i], round, SecureStep::Vote, messages[i]);
      if (votes.has_value()) {
        coordinator_->secure(names[i], round, SecureStep::Reveal, sites[i].reveal(*votes));
      }
    }
  }

  /// After a crash between the uploads and the unmasking. Whether there was anything to do.
  bool unmask_after_restart() {
    std::vector<federation::SecureSite> sites;
    std::vector<std::string> names;
    int64_t round = 0;
    for (const federation::SiteConfig& site : sites_) {
      const Task task = coordinator_->task(site.name);
      const fs::path folder = config_.folder() / "sites" / site.name;
      if (!task.secure_round.empty() && federation::SecureSite::knows(folder, task.secure_round)) {
        round = task.round;
        names.push_back(site.name);
        sites.emplace_back(
            folder, task.secure_round, site.name, key_of(site.name), storage::Digest{});
      }
    }
    if (!sites.empty()) {
      unmask(round, sites, names);
    }
    return !sites.empty();
  }

  void upload_masked(const Task& task,
                     federation::SecureSite& site,
                     federation::Submission& submission) {
    const fs::path to = update_path(submission.site, task.round);
    mask_update(work_path(submission.site, task.round),
                to,
                site.masks(federation::digest_from_hex(submission.digest)),
                comm::Group());
    submission.digest = federation::file_digest(to);
    coordinator_->submit(submission);
  }

  void workplace_done(const Task& task) {
    if (color_ == 0) {
      std::vector<ReceivedModel> models = received(task);
      workplace_.write_result(models, config_.folder());
    }
    world_.barrier();
    if (world_.rank() == 0) {
      core::log_info(fmt::format("{}; rounds in {}",
                                 task.text,
                                 (config_.folder() / "coordinator" / "rounds.jsonl").string()));
    }
  }

  const RunConfig& config_;
  const comm::Group& world_;
  std::vector<federation::SiteConfig> sites_;
  comm::Group group_;
  int groups_;
  int color_;
  Workplace workplace_;
  core::SteadyClock clock_;
  std::unique_ptr<federation::Coordinator> coordinator_;  ///< rank 0
};

int run_simulate(const po::variables_map& arguments, comm::Session* session) {
  static const Command self = federate_simulate_command();
  const comm::Group& world = session->world();
  const RunConfig config = federated_run(arguments, self);
  mesh::choose_threads(session->topology());
  on_first_rank(world, [&] {
    if (arguments.count("resume") == 0 && fs::exists(config.folder() / "coordinator")) {
      throw Error(ErrorKind::Output,
                  {.where = "cli.federate",
                   .what = "this run exists already",
                   .got = config.folder().string(),
                   .hint = "--resume to go on, --set name=NEW, or remove the folder"});
    }
    storage::posix_filesystem().make_directories(config.folder());
    storage::write_file_atomic(
        storage::posix_filesystem(), config.folder() / "config.yaml", config::dump(config));
  });
  session->set_report_folder(config.folder());
  session->watchdog().start(config.folder(), config.train.watchdog_s);
  train::catch_stop_signals();
  Simulation simulation(config, world);
  core::log_info(simulation.header());
  if (!simulation.run()) {
    core::log_info("stopped by a signal between two rounds; go on with --resume");
    return core::exit_code(ErrorKind::Preempted);
  }
  return 0;
}

}  // namespace

Command federate_simulate_command() {
  return {.name = "federate simulate",
          .summary = "federated tuning with all sites in one MPI job",
          .usage = "kamerton federate simulate RUN.yaml [--set KEY=VALUE]... [--resume]",
          .description =
              "Sites are groups of federation.ranks_per_site ranks; when there are more sites than "
              "groups, groups take them in turn.\nWrites runs/NAME/: coordinator/ (rounds.jsonl, "
              "models of all rounds), sites/, and adapter/ or model/ at the end.\n\nExamples:\n"
              "  kamerton federate simulate configs/recipes/federated.yaml\n"
              "  mpirun -np 2 kamerton federate simulate configs/recipes/federated.yaml --set "
              "federation.method=fedadam --set name=adam",
          .needs_ranks = true,
          .add_options =
              [](po::options_description& options, po::positional_options_description& positional) {
                add_run_file(options, positional);
                options.add_options()("resume", "go on where an interrupted run stopped");
              },
          .run = run_simulate};
}

}  // namespace kamerton::cli
