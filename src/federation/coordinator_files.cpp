// SPDX-License-Identifier: Apache-2.0
// The coordinator's files: updates as they arrive, what is written for people, what is removed.
#include <algorithm>
#include <cmath>
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

constexpr int64_t kMostShards = 4096;

void check_shard(int64_t shard, int64_t shards) {
  if (shards < 1 || shards > kMostShards || shard < 0 || shard >= shards) {
    throw Error(ErrorKind::Data,
                {.where = "federation.upload",
                 .what = "no such shard",
                 .got = fmt::format("{} of {}", shard, shards),
                 .allowed = fmt::format("at most {}", kMostShards)});
  }
}

RangeFile progress_file(const std::filesystem::path& update, int64_t shards) {
  return RangeFile::open_or_create(update.string() + ".progress", 8 * shards);
}

int64_t read_progress(const RangeFile& file, int64_t shard) {
  int64_t offset = 0;
  file.read(8 * shard, std::as_writable_bytes(std::span(&offset, 1)));
  return offset;
}

struct Piece {
  int64_t shard = 0;
  int64_t shards = 0;
  int64_t offset = 0;  ///< in the shard
  std::span<const std::byte> bytes;
};

/// total: bytes of the whole update. Returns how far its shard has come.
int64_t write_piece(const std::filesystem::path& update, int64_t total, const Piece& piece) {
  const auto whole_progress = static_cast<uintmax_t>(8 * piece.shards);
  const std::string progress_path = update.string() + ".progress";
  std::error_code ignored;
  if (const auto size = std::filesystem::file_size(progress_path, ignored);
      !ignored && size != 0 && size != whole_progress) {
    std::filesystem::remove(progress_path);  // the site came back with another number of ranks
  }
  RangeFile progress = progress_file(update, piece.shards);
  const int64_t have = read_progress(progress, piece.shard);
  const auto [begin, end] = Coordinator::shard_range(total, piece.shard, piece.shards);
  const auto count = static_cast<int64_t>(piece.bytes.size());
  if (piece.offset != have) {  // a cut stream's last pieces come late, or the site runs twice
    throw Error(ErrorKind::Comm,
                {.where = "federation.upload",
                 .what = "bytes of an update that do not follow",
                 .got = fmt::format("{} at {} of shard {}", count, piece.offset, piece.shard),
                 .allowed = fmt::format("from {}", have),
                 .hint = "is the site running twice?"});
  }
  if (begin + piece.offset + count > end) {
    throw Error(ErrorKind::Data,
                {.where = "federation.upload",
                 .what = "bytes beyond a shard's end",
                 .got = fmt::format("{} at {} of shard {}", count, piece.offset, piece.shard),
                 .allowed = fmt::format("up to {}", end - begin)});
  }
  RangeFile file = RangeFile::open_or_create(update, total);
  file.write(begin + piece.offset, piece.bytes);
  const int64_t now = piece.offset + count;
  progress.write(8 * piece.shard, std::as_bytes(std::span(&now, 1)));
  fault_point("coordinator.receiving");
  return now;
}

}  // namespace

std::mutex& Coordinator::State::upload_mutex(const std::string& site) {
  const std::lock_guard lock(mutex);
  return upload_mutexes[site];
}

Coordinator::State::Effort& Coordinator::State::effort_of(const std::string& site) {
  Effort& effort = efforts[site];
  if (effort.round != machine.round()) {
    effort = {.round = machine.round()};
  }
  return effort;
}

void Coordinator::State::note_upload(const std::string& site, int64_t bytes) {
  constexpr int64_t kSteps = 16;
  Effort& effort = effort_of(site);
  effort.bytes += bytes;
  const int64_t total = encoded_bytes();
  const bool step = effort.bytes - effort.counted >= std::max<int64_t>(total / kSteps, 1);
  if (step && effort.counted < 2 * total) {
    effort.counted = effort.bytes;
    note_progress();
  }
}

std::pair<int64_t, int64_t> Coordinator::shard_range(int64_t bytes, int64_t index, int64_t count) {
  const auto cut = [&](int64_t i) {
    return static_cast<int64_t>(static_cast<__int128>(bytes) * i / count);
  };
  return {cut(index), cut(index + 1)};
}

int64_t Coordinator::received(const std::string& site,
                              int64_t round,
                              int64_t shard,
                              int64_t shards) const {
  const std::lock_guard upload(state_->upload_mutex(site));
  const std::lock_guard lock(state_->mutex);
  state_->require_awaited(site, round);
  check_shard(shard, shards);
  const std::filesystem::path update = state_->spooled(site, round);
  const std::string progress = update.string() + ".progress";
  std::error_code ignored;
  if (std::filesystem::file_size(progress, ignored) != static_cast<uintmax_t>(8 * shards)) {
    return 0;
  }
  return read_progress(RangeFile::open(progress, 8 * shards), shard);
}

int64_t Coordinator::receive(const std::string& site,
                             int64_t round,
                             int64_t shard,
                             int64_t shards,
                             int64_t offset,
                             std::span<const std::byte> bytes) {
  State& state = *state_;
  const std::lock_guard upload(state.upload_mutex(site));
  int64_t total = 0;
  {
    const std::lock_guard lock(state.mutex);
    state.require_awaited(site, round);
    check_shard(shard, shards);
    storage::posix_filesystem().make_directories(state.spool(round));
    total = state.encoded_bytes();
    state.note_upload(site, static_cast<int64_t>(bytes.size()));
  }
  return state.while_awaited(site, round, [&] {
    return write_piece(state.spooled(site, round), total, {shard, shards, offset, bytes});
  });
}

bool Coordinator::State::keep_whole_update(const Submission& submission) const {
  const std::filesystem::path file = spooled(submission.site, submission.round);
  if (!std::filesystem::exists(file) || file_digest(file) != submission.digest) {
    std::filesystem::remove(file);
    std::filesystem::remove(file.string() + ".progress");
    return false;
  }
  if (!masks()) {  // a masked one is any bytes
    check_update(file, *codec, travels());
  }
  storage::sync_file(file);
  return true;
}

Json Coordinator::State::left_of_round() const {
  Json left = Json::array();
  for (const std::string& site : machine.asked()) {
    if (machine.has_left(site)) {
      left.push_back(site);
    }
  }
  return left;
}

std::string Coordinator::State::add_privacy(Json& line, double record_epsilon) const {
  std::string text;
  if (record_epsilon > 0) {
    line["record_epsilon"] = record_epsilon;
    text += fmt::format("  epsilon {:.3f} a record", record_epsilon);
  }
  if (hides_sites(options.config)) {
    const SiteEpsilon epsilon = spent();
    line["site_epsilon"] = epsilon.models;
    text += fmt::format("  epsilon {:.3f} a site", epsilon.models);
    if (!masks()) {
      line["site_epsilon_to_coordinator"] = epsilon.updates;
      text += fmt::format(" ({:.3f} to the coordinator)", epsilon.updates);
    }
  }
  return text;
}

void Coordinator::State::write_round_line(const CombineReport* report, double seconds) const {
  int64_t bytes = 0;
  double loss = 0;
  double record_epsilon = 0;
  EvalSums sums;
  for (const auto& [site, result] : machine.results()) {
    bytes += result.bytes;
    record_epsilon = std::max(record_epsilon, result.epsilon);
    loss += result.train_loss;
    sums.nll += result.eval_nll;
    sums.targets += result.eval_targets;
    sums.correct += result.eval_correct;
  }
  const auto sites = static_cast<double>(std::max<size_t>(machine.results().size(), 1));
  Json line = {
      {"round", machine.round()},
      {"sites", machine.results().size()},
      {"asked", machine.asked().size()},
      {"seconds", seconds},
      {"bytes_up", bytes},
      {"bytes_down", 4 * model_of(machine.round()).elements * static_cast<int64_t>(sites)}};
  if (sums.targets > 0) {
    line["eval_loss"] = sums.nll / static_cast<double>(sums.targets);
    line["eval_accuracy"] = static_cast<double>(sums.correct) / static_cast<double>(sums.targets);
    line["eval_targets"] = sums.targets;
  }
  if (report != nullptr) {
    line["train_loss"] = loss / sites;
    line["update_norm"] = report->update_norm;
    line["model"] = report->digest;
    line["in_force"] = report->sites;
    line["shares"] = report->shares;
    if (report->error.has_value()) {
      line["adapter_error"] = *report->error;
    }
  }
  if (Json left = left_of_round(); !left.empty()) {
    line["left"] = std::move(left);
  }
  const std::string privacy = add_privacy(line, record_epsilon);
  std::ofstream(folder("rounds.jsonl"), std::ios::app) << line.dump() << "\n";
  core::log_info(fmt::format(
      "round {:>4}  {} of {} sites  {:.1f} s  {} bytes up{}{}{}",
      machine.round(),
      machine.results().size(),
      machine.asked().size(),
      seconds,
      bytes,
      sums.targets > 0
          ? fmt::format("  held-out loss {:.4f}", sums.nll / static_cast<double>(sums.targets))
          : "",
      report != nullptr && report->error.has_value()
          ? fmt::format("  adapter error {:.2g}", *report->error)
          : "",
      privacy));
}

/// What late uploads of a closed round still write or read goes when the next round is cleaned.
void Coordinator::State::clean_spool(int64_t round) const {
  const std::string last = spool(round).filename().string();
  for (const std::string& name : storage::posix_filesystem().list(folder("spool"))) {
    if (name <= last) {  // digits of one width: in the order of rounds
      std::error_code in_use;
      std::filesystem::remove_all(folder("spool") / name, in_use);
    }
  }
}

void Coordinator::State::clean(int64_t round) const {
  storage::FileSystem& files = storage::posix_filesystem();
  clean_spool(round);
  for (const char* which : {"m", "v"}) {
    files.remove_all(moment_file(which, round));
  }
  const bool needs_all = options.lora && options.config.adapters == "stack";
  if (options.config.keep_models > 0 && !needs_all) {
    files.remove_all(model_file(round + 1 - options.config.keep_models));
  }
}

Json Coordinator::status() const {
  const State& state = *state_;
  const std::lock_guard lock(state.mutex);
  static constexpr const char* kPhases[] = {"gathering", "open", "combining", "idle", "stopped"};
  Json sites = Json::array();
  for (const std::string& site : state.machine.joined()) {
    sites.push_back({{"name", site},
                     {"away", state.machine.is_away(site)},
                     {"left", state.machine.has_left(site)},
                     {"awaited", state.machine.awaits(site)}});
  }
  Json losses = Json::array();
  for (const auto& [round, sums] : state.machine.evaluations()) {
    losses.push_back({{"round", round},
                      {"loss", sums.nll / static_cast<double>(sums.targets)},
                      {"targets", sums.targets}});
  }
  return {{"run", state.options.run},
          {"phase", kPhases[static_cast<int>(state.machine.phase())]},
          {"round", state.machine.round()},
          {"rounds", state.options.config.rounds},
          {"sites", std::move(sites)},
          {"losses", std::move(losses)},
          {"stop_reason", state.machine.stop_reason()}};
}

}  // namespace kamerton::federation
