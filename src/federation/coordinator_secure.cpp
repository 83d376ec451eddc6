// SPDX-License-Identifier: Apache-2.0
// The masked part of a round (Bonawitz et al. 2017): sites that have trained exchange keys and
// shares, upload masked updates, agree on who has uploaded, and help to take the masks off the sum.
// Every message that counts is in the journal, so that a restart finds the same machine.
#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/core/log.h"
#include "kamerton/federation/fault_point.h"

#include "coordinator_state.h"
#include "hex.h"

namespace kamerton::federation {
namespace {

using core::Error;
using core::ErrorKind;
using core::Json;
using privacy::SecureStage;

constexpr size_t kMostMessage = size_t{64} << 20;
constexpr const char* kStageNames[] = {"keys", "shares", "masked updates", "votes", "reveals"};

/// The stage in which a step's message counts.
SecureStage stage_of(SecureStep step) {
  switch (step) {
    case SecureStep::Advert:
      return SecureStage::Adverts;
    case SecureStep::Shares:
      return SecureStage::Shares;
    case SecureStep::Survivors:
    case SecureStep::Vote:
      return SecureStage::Votes;
    case SecureStep::Reveal:
      break;
  }
  return SecureStage::Reveals;
}

template <class Message>
bool accept_from(privacy::SecureServer& server, uint32_t site, std::string_view bytes) {
  const Message message = Message::decode(bytes);
  if (message.site != site) {
    throw Error(ErrorKind::Permission,
                {.where = "federation.secure",
                 .what = "a site speaks for another",
                 .got = fmt::format("{}", message.site),
                 .allowed = fmt::format("{}", site)});
  }
  return server.accept(message);
}

/// Whether it counts (for the first time).
bool accept_step(privacy::SecureServer& server,
                 uint32_t site,
                 SecureStep step,
                 std::string_view bytes) {
  switch (step) {
    case SecureStep::Advert:
      return accept_from<privacy::KeyAdvert>(server, site, bytes);
    case SecureStep::Shares:
      return accept_from<privacy::ShareBundle>(server, site, bytes);
    case SecureStep::Vote:
      return accept_from<privacy::ConsistencyVote>(server, site, bytes);
    case SecureStep::Reveal:
      return accept_from<privacy::Reveal>(server, site, bytes);
    case SecureStep::Survivors:
      break;
  }
  return false;
}

std::optional<std::string> answer_to(const privacy::SecureServer& server,
                                     uint32_t site,
                                     SecureStep step) {
  const SecureStage stage = server.stage();
  if (step == SecureStep::Advert && stage > SecureStage::Adverts) {
    return server.book().encode();
  }
  if (step == SecureStep::Shares && stage > SecureStage::Shares) {
    return server.delivery(site).encode();
  }
  if (step == SecureStep::Survivors && stage >= SecureStage::Votes) {
    return server.survivors().encode();
  }
  if (step == SecureStep::Vote && stage > SecureStage::Votes) {
    return server.votes().encode();
  }
  if (step == SecureStep::Reveal) {
    return std::string();
  }
  return std::nullopt;
}

}  // namespace

bool Coordinator::State::all_heard() const {
  const std::vector<uint32_t> heard = secure->heard();
  const std::vector<uint32_t> expected = secure->expected();
  const auto settled = [&](uint32_t id) {
    return std::binary_search(heard.begin(), heard.end(), id) || machine.has_left(secure_name(id));
  };
  return std::all_of(expected.begin(), expected.end(), settled) && secure->enough();
}

bool Coordinator::State::hopeless() const {
  if (secure->stage() > SecureStage::Uploads) {
    return false;
  }
  const std::vector<uint32_t> heard = secure->heard();
  const std::vector<uint32_t> expected = secure->expected();
  const auto able = std::count_if(expected.begin(), expected.end(), [&](uint32_t id) {
    return std::binary_search(heard.begin(), heard.end(), id) || !machine.has_left(secure_name(id));
  });
  return able < static_cast<int64_t>(secure->round().quorum);
}

bool Coordinator::State::in_secure_round(const std::string& site) const {
  const auto& members = secure->round().sites;
  return std::any_of(
      members.begin(), members.end(), [&](const auto& member) { return member.name == site; });
}

uint32_t Coordinator::State::secure_id(const std::string& site) const {
  for (const privacy::SecureSite& member : secure->round().sites) {
    if (member.name == site) {
      return member.id;
    }
  }
  throw Error(
      ErrorKind::Permission,
      {.where = "federation.secure", .what = "a site is not in this masked round", .got = site});
}

std::string Coordinator::State::secure_name(uint32_t id) const {
  const privacy::SecureSite* member = secure->round().find(id);
  return member == nullptr ? std::string() : member->name;
}

Json Coordinator::State::secure_round_event() const {
  privacy::SecureRound round;
  round.run = storage::digest_of(options.run + "|" + options.digest);
  round.round = static_cast<uint64_t>(machine.round());
  round.model = digest_from_hex(model_of(machine.round()).digest);
  for (const std::string& site : machine.asked()) {
    round.sites.push_back(options.member(site));
  }
  std::sort(round.sites.begin(), round.sites.end(), [](const auto& a, const auto& b) {
    return a.id < b.id;
  });
  round.use_defaults();
  if (options.config.privacy.threshold > 0) {
    round.threshold = static_cast<uint32_t>(options.config.privacy.threshold);
  }
  if (hides_sites(options.config)) {  // no sum of fewer carries the noise
    round.quorum = std::max(round.quorum, static_cast<uint32_t>(options.config.cohort.min_sites));
  }
  round.check();
  return {{"event", "secure_round"},
          {"round", machine.round()},
          {"bytes", to_hex_text(round.encode())}};
}

void Coordinator::State::apply_secure(const Json& event) {
  const std::string kind = event["event"].get<std::string>();
  if (kind == "secure_round") {
    secure.emplace(privacy::SecureRound::decode(from_hex(event["bytes"].get<std::string>())));
  } else if (kind == "secure_message") {
    accept_step(*secure,
                event["site"].get<uint32_t>(),
                static_cast<SecureStep>(event["step"].get<int>()),
                from_hex(event["bytes"].get<std::string>()));
  } else if (kind == "secure_stage") {
    switch (secure->stage()) {
      case SecureStage::Adverts:
        secure->close_adverts();
        break;
      case SecureStage::Shares:
        secure->close_shares();
        break;
      case SecureStage::Votes:
        secure->close_votes();
        break;
      default:
        break;
    }
  }
}

void Coordinator::State::close_secure_uploads() {
  if (!secure.has_value()) {
    return;
  }
  for (const auto& [site, result] : machine.results()) {
    secure->uploaded(secure_id(site));
  }
  if (secure->enough()) {
    secure->close_uploads();
  }
}

bool Coordinator::State::secure_ready() const {
  return secure.has_value() && secure->stage() == SecureStage::Reveals &&
         (all_heard() || (overdue() && secure->enough()));
}

bool Coordinator::State::advance_secure() {
  const bool open = machine.phase() == Phase::Open && !machine.evaluates_only();
  const bool closed = machine.phase() == Phase::Closed;
  if (!masks() || (!open && !closed)) {
    return false;
  }
  if (!secure.has_value()) {
    record(secure_round_event());
    return true;
  }
  const SecureStage stage = secure->stage();
  if (open && hopeless()) {
    core::log_warning(fmt::format("round {}: too many sites have left", machine.round()));
    record({{"event", "skip"}, {"round", machine.round()}, {"dropped", Json::array()}});
    return true;
  }
  if (closed && stage == SecureStage::Uploads) {  // too few of them to go on
    record({{"event", "abort"}, {"round", machine.round()}});
    return true;
  }
  if (stage == SecureStage::Uploads || secure_ready()) {
    return false;
  }
  if (!all_heard() && !(overdue() && secure->enough())) {
    if (closed && overdue()) {
      core::log_warning(fmt::format("round {}: too few {}; the model stays",
                                    machine.round(),
                                    kStageNames[static_cast<int>(stage)]));
      record({{"event", "abort"}, {"round", machine.round()}});
      return true;
    }
    return false;
  }
  std::vector<std::string> silent;
  const std::vector<uint32_t> heard = secure->heard();
  for (const uint32_t id : secure->expected()) {
    if (!std::binary_search(heard.begin(), heard.end(), id)) {
      silent.push_back(secure_name(id));
    }
  }
  record(
      {{"event", "secure_stage"}, {"round", machine.round()}, {"stage", static_cast<int>(stage)}});
  fault_point("coordinator.secure_stage");
  for (const std::string& site : silent) {
    if (machine.awaits(site)) {
      record({{"event", "drop"}, {"round", machine.round()}, {"site", site}});
    }
  }
  return true;
}

std::optional<std::string> Coordinator::secure(const std::string& site,
                                               int64_t round,
                                               SecureStep step,
                                               std::string_view message) {
  State& state = *state_;
  const std::lock_guard lock(state.mutex);
  state.require_site(site);
  if (!state.secure.has_value() || state.machine.round() != round) {
    throw Error(ErrorKind::Permission,
                {.where = "federation.secure",
                 .what = "no masked round of this number is under way",
                 .got = fmt::format("round {}", round)});
  }
  if (message.size() > kMostMessage) {
    throw Error(ErrorKind::Data, {.where = "federation.secure", .what = "a message is too large"});
  }
  const uint32_t id = state.secure_id(site);
  if (step != SecureStep::Survivors && state.secure->stage() == stage_of(step) &&
      accept_step(*state.secure, id, step, message)) {
    state.journal.append({{"event", "secure_message"},
                          {"round", round},
                          {"site", id},
                          {"step", static_cast<int>(step)},
                          {"bytes", to_hex_text(message)}});
    fault_point("coordinator.secure_message");
    state.note_progress();
  }
  return answer_to(*state.secure, id, step);
}

}  // namespace kamerton::federation
