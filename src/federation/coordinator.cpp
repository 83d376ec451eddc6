// SPDX-License-Identifier: Apache-2.0
#include "kamerton/federation/coordinator.h"

#include <algorithm>
#include <fstream>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/core/log.h"
#include "kamerton/federation/fault_point.h"
#include "kamerton/storage/filesystem.h"

#include "coordinator_state.h"

namespace kamerton::federation {
namespace {

using core::Error;
using core::ErrorKind;
using core::Json;

constexpr uint64_t kMostLayoutBytes = uint64_t{256} << 20;

std::string verb(const Json& event) {
  return event["event"].get<std::string>();
}

/// Folders must exist before the journal is opened in one.
std::filesystem::path prepared(const std::filesystem::path& folder) {
  for (const char* part : {"models", "server", "spool"}) {
    storage::posix_filesystem().make_directories(folder / part);
  }
  return folder / "journal";
}

[[noreturn]] void forbid(const std::string& what, const std::string& site) {
  throw Error(ErrorKind::Permission,
              {.where = "federation.coordinator", .what = what, .got = "site '" + site + "'"});
}

}  // namespace

Coordinator::State::State(CoordinatorOptions given, const core::Clock& time)
    : options(std::move(given)),
      clock(time),
      journal(prepared(options.folder)),
      machine(options.config, options.seed),
      codec(make_codec(options.config.update, 0)) {
  note_progress();
  round_begin_s = clock.now_s();
  if (journal.past().empty()) {
    journal.append({{"event", "begin"}, {"run", options.run}, {"digest", options.digest}});
    return;
  }
  const Json& begin = journal.past().front();
  if (core::json_string(begin, "run", "journal") != options.run ||
      core::json_string(begin, "digest", "journal") != options.digest) {
    throw Error(ErrorKind::Config,
                {.where = "federation.coordinator",
                 .what = "the folder belongs to another run or configuration",
                 .got = options.folder.string(),
                 .hint = "another run name, or the configuration that the run began with"});
  }
  load_layout();
  for (size_t i = 1; i < journal.past().size(); ++i) {
    apply(journal.past()[i]);
  }
}

void Coordinator::State::record(const Json& event) {
  journal.append(event);
  apply(event);
  if (options.on_event) {
    options.on_event(event);
  }
}

void Coordinator::State::apply(const Json& event) {
  const std::string kind = verb(event);
  if (kind.starts_with("secure")) {
    apply_secure(event);
    return;
  }
  const bool trains = !machine.evaluates_only();
  machine.apply(event);
  if (kind == "accept" && trains) {
    ++rounds_of[event["result"]["site"].get<std::string>()];
  } else if (kind == "close") {
    close_secure_uploads();
  } else if (kind == "commit" || kind == "abort" || kind == "skip") {
    secure.reset();
  }
}

void Coordinator::State::load_layout() {
  const std::filesystem::path path = folder("layout.json");
  if (std::filesystem::exists(path)) {
    layout = Layout::from_json(
        core::parse_json(storage::posix_filesystem().read_file(path, kMostLayoutBytes),
                         path.string()),
        path.string());
    codec = make_codec(options.config, layout->total(), 0);
  }
}

std::filesystem::path Coordinator::State::model_file(int64_t round) const {
  return folder("models") / fmt::format("round-{:06d}.f32", round);
}

std::filesystem::path Coordinator::State::moment_file(const char* which, int64_t round) const {
  return folder("server") / fmt::format("round-{:06d}.{}.f32", round, which);
}

std::filesystem::path Coordinator::State::spool(int64_t round) const {
  return folder("spool") / fmt::format("round-{:06d}", round);
}

std::filesystem::path Coordinator::State::spooled(const std::string& site, int64_t round) const {
  return spool(round) / (site + ".update");
}

void Coordinator::State::require_site(const std::string& site) const {
  if (machine.joined().count(site) == 0) {
    forbid("a site has not joined this run", site);
  }
  if (machine.has_left(site)) {
    forbid("a site has left this run", site);
  }
}

void Coordinator::State::require_awaited(const std::string& site, int64_t round) const {
  require_site(site);
  if (!machine.awaits(site) || machine.round() != round || machine.evaluates_only() ||
      !takes_uploads()) {
    forbid(fmt::format("no update of round {} is awaited", round), site);
  }
}

ModelFile Coordinator::State::model_of(int64_t round) const {
  ModelFile model;
  for (const Json& commit : machine.commits()) {  // the last commit before the round
    if (commit["round"].get<int64_t>() < round) {
      model.round = commit["round"].get<int64_t>() + 1;
      model.elements = commit["elements"].get<int64_t>();
      model.digest = commit["digest"].get<std::string>();
      model.shares = commit["shares"].get<std::vector<double>>();
    }
  }
  return model;
}

std::vector<ModelFile> Coordinator::State::models_for(int64_t round) const {
  std::vector<ModelFile> models;
  if (options.lora && options.config.adapters == "stack") {
    for (const Json& commit : machine.commits()) {
      models.push_back(model_of(commit["round"].get<int64_t>() + 1));
    }
  } else if (const ModelFile model = model_of(round); model.elements > 0) {
    models.push_back(model);
  }
  return models;
}

std::vector<Contribution> Coordinator::State::contributions() const {
  std::vector<Contribution> list;
  for (const auto& [site, result] : machine.results()) {
    const std::string& by = options.config.weights;
    const double weight = weighs_integers(options.config) ? 1.0  // the site has applied it
                          : by == "targets"               ? static_cast<double>(result.targets)
                          : by == "examples"              ? static_cast<double>(result.examples)
                                                          : 1.0;
    if (weight > 0) {
      list.push_back({site, weight, 0, spooled(site, machine.round())});
    }
  }
  return list;
}

Json Coordinator::State::commit_event(const CombineReport& report, int64_t round) const {
  const bool stacks = options.config.adapters == "stack" && options.lora;
  Json event = {{"event", "commit"},
                {"round", round},
                {"digest", report.digest},
                {"elements", report.elements},
                {"shares", stacks ? Json(report.shares) : Json::array()}};
  if (hides_sites(options.config)) {
    event["epsilon_after"] = spent().models;
  }
  return event;
}

SiteEpsilon Coordinator::State::spent() const {
  int64_t most = 0;
  for (const auto& [site, rounds] : rounds_of) {
    most = std::max(most, rounds);
  }
  return site_epsilon(options.config, most);
}

Coordinator::Coordinator(CoordinatorOptions options, const core::Clock& clock)
    : state_(new State(std::move(options), clock)) {}

Coordinator::~Coordinator() = default;

void Coordinator::join(const JoinRequest& request) {
  State& state = *state_;
  const std::lock_guard lock(state.mutex);
  if (request.run != state.options.run || request.digest != state.options.digest) {
    throw Error(ErrorKind::Permission,
                {.where = "federation.join",
                 .what = "site '" + request.site + "' has another run, configuration or base model",
                 .got = request.run + ", digest " + request.digest.substr(0, 16),
                 .allowed = state.options.run + ", digest " + state.options.digest.substr(0, 16),
                 .hint = "the coordinator's run file and model at every site"});
  }
  const Layout offered =
      Layout::from_json(core::parse_json(request.layout_json,
                                         "layout of " + request.site,
                                         {.max_bytes = kMostLayoutBytes, .max_depth = 8}),
                        "layout of " + request.site);
  if (!state.layout.has_value()) {
    auto codec = make_codec(state.options.config, offered.total(), 0);
    storage::write_file_atomic(
        storage::posix_filesystem(), state.folder("layout.json"), offered.to_json().dump());
    state.layout = offered;
    state.codec = std::move(codec);
  } else if (offered.digest() != state.layout->digest()) {
    forbid("a site trains other tensors than the first one that joined", request.site);
  }
  if (state.machine.joined().count(request.site) == 0) {
    state.record({{"event", "join"}, {"site", request.site}});
    core::log_info(fmt::format("site {} has joined", request.site));
    fault_point("coordinator.joined");
  }
  if (++state.effort_of(request.site).joins <= State::kJoinsOfRound) {
    state.note_progress();
  }
}

void Coordinator::leave(const std::string& site, const std::string& reason) {
  State& state = *state_;
  const std::lock_guard lock(state.mutex);
  if (state.machine.has_left(site)) {
    return;  // the answer was lost
  }
  state.require_site(site);
  state.record({{"event", "leave"}, {"site", site}, {"reason", reason.substr(0, 400)}});
}

Task Coordinator::task(const std::string& site) {
  State& state = *state_;
  const std::lock_guard lock(state.mutex);
  if (state.machine.phase() == Phase::Stopped) {
    return {.kind = Task::Kind::Done,
            .models = state.models_for(state.machine.round()),
            .text = state.machine.stop_reason()};
  }
  if (state.machine.has_left(site)) {
    return {.round = state.machine.round(), .models = {}, .text = {}};  // the result is for it, too
  }
  state.require_site(site);
  if (state.machine.is_away(site)) {
    state.record({{"event", "back"}, {"site", site}});
  }
  Task task{.round = state.machine.round(), .models = {}, .text = {}};
  if (state.secure.has_value() && state.in_secure_round(site)) {
    task.secure_round = state.secure->round().encode();
  }
  const bool trains = !state.machine.evaluates_only();
  if (!state.machine.awaits(site) || (trains && state.masks() && task.secure_round.empty())) {
    return task;  // nothing to do, or the masked round is not set up yet
  }
  task.kind = trains ? Task::Kind::Train : Task::Kind::Evaluate;
  task.measure = state.machine.measures();
  task.models = state.models_for(task.round);
  return task;
}

std::filesystem::path Coordinator::model_path(int64_t round) const {
  return state_->model_file(round);
}

int64_t Coordinator::update_bytes() const {
  const std::lock_guard lock(state_->mutex);
  return state_->encoded_bytes();
}

Receipt Coordinator::submit(const Submission& submission) {
  State& state = *state_;
  // From the check of the bytes to the journal nobody else with this site's name changes them.
  const std::lock_guard upload(state.upload_mutex(submission.site));
  bool trains = false;
  {
    const std::lock_guard lock(state.mutex);
    state.require_site(submission.site);
    const Verdict verdict = state.machine.judge(submission);
    if (verdict != Verdict::Accept) {
      return {verdict, false};
    }
    trains = !state.machine.evaluates_only();
    if (trains) {
      state.require_awaited(submission.site, submission.round);
    }
  }
  if (trains) {  // outside of the lock: reads the whole update
    const bool whole = state.while_awaited(
        submission.site, submission.round, [&] { return state.keep_whole_update(submission); });
    if (!whole) {
      return {Verdict::Accept, true};
    }
    fault_point("coordinator.received");
  }
  const std::lock_guard lock(state.mutex);
  const Verdict verdict = state.machine.judge(submission);
  if (verdict == Verdict::Accept) {
    state.record({{"event", "accept"}, {"result", submission.to_json()}});
    fault_point("coordinator.accepted");
    state.note_progress();
  }
  return {verdict, false};
}

bool Coordinator::tick() {
  State& state = *state_;
  std::vector<Contribution> contributions;
  std::optional<privacy::MaskPlan> masks;
  int64_t round = 0;
  {
    const std::lock_guard lock(state.mutex);
    if (state.combining) {
      return false;
    }
    if (state.advance_secure()) {
      state.note_progress();
      return true;
    }
    if (const auto event = state.machine.decide(state.overdue())) {
      if (verb(*event) == "close" && state.machine.evaluates_only()) {
        state.write_round_line(nullptr, state.clock.now_s() - state.round_begin_s);
      }
      state.record(*event);
      if (verb(*event) == "open") {
        state.round_begin_s = state.clock.now_s();
        fault_point("coordinator.opened");
      } else if (verb(*event) == "stop") {
        core::log_info("stopped: " + state.machine.stop_reason());
        fault_point("coordinator.finished");
      }
      state.note_progress();
      return true;
    }
    if (state.machine.phase() != Phase::Closed || (state.masks() && !state.secure_ready())) {
      return false;
    }
    if (state.masks()) {
      masks = state.secure->unmask();
    }
    fault_point("coordinator.closed");
    contributions = state.contributions();
    round = state.machine.round();
    state.combining = true;
  }
  const CombineReport report = combine_updates(state, contributions, round, masks);
  const std::lock_guard lock(state.mutex);
  state.combining = false;
  state.write_round_line(&report, state.clock.now_s() - state.round_begin_s);
  state.record(state.commit_event(report, round));
  fault_point("coordinator.committed");
  state.clean(round);
  state.note_progress();
  return true;
}

bool Coordinator::stopped() const {
  const std::lock_guard lock(state_->mutex);
  return state_->machine.phase() == Phase::Stopped;
}

std::string Coordinator::stop_reason() const {
  const std::lock_guard lock(state_->mutex);
  return state_->machine.stop_reason();
}

const Layout& Coordinator::layout() const {
  return *state_->layout;
}

const FederationConfig& Coordinator::config() const {
  return state_->options.config;
}

}  // namespace kamerton::federation
