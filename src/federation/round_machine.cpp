// SPDX-License-Identifier: Apache-2.0
#include "kamerton/federation/round_machine.h"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/core/random.h"

namespace kamerton::federation {
namespace {

using core::Json;

constexpr int64_t kMostSkips = 3;  ///< rounds in a row without enough results
constexpr char kOrigin[] = "federation journal";

/// A list of names, as the journal has it.
std::vector<std::string> names_in(const Json& event, const char* key) {
  const Json* list = core::json_find(event, key);
  std::vector<std::string> names;
  bool good = list != nullptr && list->is_array();
  for (size_t i = 0; good && i < list->size(); ++i) {
    good = (*list)[i].is_string();
    names.push_back(good ? (*list)[i].get<std::string>() : std::string());
  }
  if (!good) {
    throw core::Error(core::ErrorKind::Data,
                      {.where = "federation.round",
                       .what = std::string(kOrigin) + ": '" + key + "' is no list of names"});
  }
  return names;
}

}  // namespace

std::vector<std::string> draw_sites(const std::vector<std::string>& names,
                                    int64_t count,
                                    uint64_t seed,
                                    int64_t round) {
  std::vector<std::string> sorted = names;
  std::sort(sorted.begin(), sorted.end());
  const auto size = static_cast<int64_t>(sorted.size());
  if (count >= size) {
    return sorted;
  }
  const core::Permutation order(
      static_cast<uint64_t>(size), seed, "federation.cohort", static_cast<uint64_t>(round));
  std::vector<std::string> drawn;
  for (int64_t i = 0; i < count; ++i) {
    drawn.push_back(sorted[order(static_cast<uint64_t>(i))]);
  }
  std::sort(drawn.begin(), drawn.end());
  return drawn;
}

RoundMachine::RoundMachine(const FederationConfig& config, uint64_t seed)
    : config_(config), seed_(seed) {}

void RoundMachine::require(bool condition, const Json& event) const {
  if (!condition) {
    throw core::Error(core::ErrorKind::Data,
                      {.where = "federation.round",
                       .what = "an event cannot follow here",
                       .got = event.dump().substr(0, 200),
                       .allowed = fmt::format(
                           "what fits phase {} of round {}", static_cast<int>(phase_), round_)});
  }
}

bool RoundMachine::measures() const {
  return kind_ == "evaluate" || (config_.eval_every > 0 && round_ % config_.eval_every == 0);
}

bool RoundMachine::awaits(const std::string& site) const {
  return phase_ == Phase::Open && results_.count(site) == 0 && dropped_.count(site) == 0 &&
         left_.count(site) == 0 && std::binary_search(asked_.begin(), asked_.end(), site);
}

void RoundMachine::open(const Json& event) {
  require((phase_ == Phase::Gathering || phase_ == Phase::Idle) &&
              core::json_int(event, "round", kOrigin) == round_,
          event);
  const std::string kind = core::json_string(event, "kind", kOrigin);
  std::vector<std::string> asked = names_in(event, "sites");
  const auto known = [&](const std::string& site) { return joined_.count(site) != 0; };
  require(!asked.empty() && std::is_sorted(asked.begin(), asked.end()) &&
              std::all_of(asked.begin(), asked.end(), known),
          event);
  kind_ = kind;
  asked_ = std::move(asked);
  results_.clear();
  dropped_.clear();
  phase_ = Phase::Open;
}

void RoundMachine::close(const Json& event, bool enough) {
  require(phase_ == Phase::Open && core::json_int(event, "round", kOrigin) == round_, event);
  for (const std::string& site : names_in(event, "dropped")) {
    away_.insert(site);
  }
  EvalSums sums;
  for (const auto& [site, result] : results_) {
    sums.nll += result.eval_nll;
    sums.targets += result.eval_targets;
    sums.correct += result.eval_correct;
  }
  if (sums.targets > 0) {
    evaluations_[round_] = sums;
  }
  skipped_in_a_row_ = enough ? 0 : skipped_in_a_row_ + 1;
  evaluated_last_ = kind_ == "evaluate";
  phase_ = enough && kind_ == "train" ? Phase::Closed : Phase::Idle;
  if (!enough && kind_ == "train") {
    next_round();
  }
}

void RoundMachine::next_round() {
  ++round_;
  asked_.clear();
  results_.clear();
  dropped_.clear();
}

void RoundMachine::apply(const Json& event) {
  const std::string kind = core::json_string(event, "event", kOrigin);
  if (kind == "join" || kind == "back" || kind == "leave") {
    const std::string site = core::json_string(event, "site", kOrigin);
    if (kind == "join") {
      require(joined_.insert(site).second, event);
    } else if (kind == "back") {
      require(away_.erase(site) == 1, event);
    } else {
      require(joined_.count(site) != 0 && left_.insert(site).second, event);
    }
  } else if (kind == "open") {
    open(event);
  } else if (kind == "accept") {
    const Json* result = core::json_find(event, "result");
    require(result != nullptr, event);
    const Submission submission = Submission::from_json(*result, kOrigin);
    require(judge(submission) == Verdict::Accept, event);
    results_.emplace(submission.site, submission);
  } else if (kind == "close" || kind == "skip") {
    close(event, kind == "close");
  } else if (kind == "commit") {
    require(phase_ == Phase::Closed && core::json_int(event, "round", kOrigin) == round_, event);
    commits_.push_back(event);
    next_round();
    phase_ = Phase::Idle;
  } else if (kind == "drop") {
    const std::string site = core::json_string(event, "site", kOrigin);
    require(phase_ == Phase::Open && awaits(site), event);
    dropped_.insert(site);
    away_.insert(site);
  } else if (kind == "abort") {
    require(phase_ == Phase::Closed, event);
    ++skipped_in_a_row_;
    next_round();
    phase_ = Phase::Idle;
  } else if (kind == "stop") {
    stop_reason_ = core::json_string(event, "reason", kOrigin);
    phase_ = Phase::Stopped;
  } else {
    require(false, event);
  }
}

Verdict RoundMachine::judge(const Submission& submission) const {
  const bool asked = std::binary_search(asked_.begin(), asked_.end(), submission.site);
  if (submission.round < round_) {
    return Verdict::Late;
  }
  const auto before = results_.find(submission.site);
  if (submission.round == round_ && asked && before != results_.end()) {
    return before->second.digest == submission.digest ? Verdict::Duplicate : Verdict::Conflict;
  }
  if (submission.round > round_ || !asked || dropped_.count(submission.site) != 0 ||
      phase_ == Phase::Gathering) {
    return Verdict::NotAsked;
  }
  return phase_ == Phase::Open ? Verdict::Accept : Verdict::Late;
}

Json RoundMachine::open_event(const std::string& kind) const {
  std::vector<std::string> ready;
  for (const std::string& site : joined_) {
    if (away_.count(site) == 0 && left_.count(site) == 0) {
      ready.push_back(site);
    }
  }
  const auto all = static_cast<int64_t>(ready.size());
  const int64_t wanted =
      config_.cohort.size > 0 && kind == "train" ? config_.cohort.size + config_.cohort.extra : all;
  return {{"event", "open"},
          {"round", round_},
          {"kind", kind},
          {"sites", draw_sites(ready, wanted, seed_, round_)}};
}

bool RoundMachine::lost_patience() const {
  if (config_.patience == 0) {
    return false;
  }
  double best = 0;
  int64_t since = -1;
  for (const auto& [round, sums] : evaluations_) {
    const double loss = sums.nll / static_cast<double>(sums.targets);
    if (since < 0 || loss < best) {
      best = loss;
      since = 0;
    } else {
      ++since;
    }
  }
  return since >= config_.patience;
}

std::optional<Json> RoundMachine::decide_open() const {
  const auto stop = [](const std::string& reason) {
    return Json{{"event", "stop"}, {"reason", reason}};
  };
  if (phase_ == Phase::Gathering) {
    const int64_t needed =
        config_.cohort.start_sites > 0
            ? config_.cohort.start_sites
            : std::max(config_.cohort.min_sites, config_.cohort.size + config_.cohort.extra);
    if (static_cast<int64_t>(joined_.size() - left_.size()) < needed) {
      return std::nullopt;
    }
    return open_event("train");
  }
  if (skipped_in_a_row_ >= kMostSkips) {
    return stop(fmt::format("{} rounds in a row had too few results", skipped_in_a_row_));
  }
  if (joined_.size() - left_.size() < static_cast<size_t>(config_.cohort.min_sites)) {
    return stop("too few sites are left");
  }
  const bool last = round_ >= config_.rounds || lost_patience();
  if (last && (config_.eval_every == 0 || evaluated_last_)) {
    return stop(lost_patience() ? "no better loss for federation.patience evaluations"
                                : "finished");
  }
  Json event = open_event(last ? "evaluate" : "train");
  const size_t least = last ? 1 : static_cast<size_t>(config_.cohort.min_sites);
  if (event["sites"].size() < least) {
    return std::nullopt;  // too many are away: some must come back
  }
  return event;
}

std::optional<Json> RoundMachine::decide_close(bool overdue) const {
  int64_t missing = 0;
  Json dropped = Json::array();
  for (const std::string& site : asked_) {
    if (results_.count(site) == 0 && left_.count(site) == 0 && dropped_.count(site) == 0) {
      ++missing;
      dropped.push_back(site);
    }
  }
  const auto have = static_cast<int64_t>(results_.size());
  const bool train = kind_ == "train";
  const bool full = train && config_.cohort.size > 0 && have >= config_.cohort.size;
  if (!full && missing > 0 && !overdue) {
    return std::nullopt;
  }
  if (full && !overdue) {
    dropped = Json::array();  // asked beyond need: not their fault
  }
  const bool enough = have >= (train ? config_.cohort.min_sites : 1);
  return Json{
      {"event", enough ? "close" : "skip"}, {"round", round_}, {"dropped", std::move(dropped)}};
}

std::optional<Json> RoundMachine::decide(bool overdue) const {
  switch (phase_) {
    case Phase::Gathering:
    case Phase::Idle:
      return decide_open();
    case Phase::Open:
      return decide_close(overdue);
    case Phase::Closed:
    case Phase::Stopped:
      return std::nullopt;
  }
  return std::nullopt;
}

}  // namespace kamerton::federation
