// SPDX-License-Identifier: Apache-2.0
#include "monitor.h"

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

#include <fmt/format.h>
#include <unistd.h>

#include "kamerton/core/error.h"

#include "crash_handler.h"

namespace kamerton::comm {
namespace {

using namespace std::chrono_literals;
constexpr auto kBeat = 250ms;
constexpr int64_t kSilentMs =
    3000;  // a neighbour without a heartbeat for so long is stopped or dead

int64_t monotonic_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

int64_t unix_s() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

std::string bytes_text(int64_t bytes) {
  if (bytes >= int64_t{1} << 20) {
    return fmt::format("{:.4g} MiB", static_cast<double>(bytes) / (1 << 20));
  }
  return fmt::format("{} B", bytes);
}

}  // namespace

Monitor::Monitor(Topology topology, std::shared_ptr<NodeTable> table, EndJob end_job)
    : topology_(std::move(topology)), table_(std::move(table)), end_job_(std::move(end_job)) {}

Monitor::~Monitor() {
  stop();
}

void Monitor::enter(const Entry& entry) {
  const std::lock_guard lock(mutex_);
  Record& record = ring_[entered_++ % ring_.size()];
  record.sequence = entry.sequence;
  record.group_id = entry.group_id;
  record.bytes = entry.bytes;
  record.op = entry.op;
  const size_t length = std::min(entry.group.size(), sizeof record.group - 1);
  std::memcpy(record.group, entry.group.data(), length);
  record.group[length] = '\0';
  record.begin = Clock::now();
  record.end = {};
  inside_ = true;
  group_row_ = table_->own_group(entry.group_id);
  if (group_row_ != nullptr) {
    group_row_->sequence.store(entry.sequence, std::memory_order_relaxed);
    group_row_->inside.store(1, std::memory_order_relaxed);
  }
  if (status_) {
    status_->set(StatusField::Op, entry.op);
    status_->set(StatusField::Group, entry.group);
    status_->set(StatusField::Bytes, entry.bytes);
    status_->set(StatusField::Sequence, static_cast<int64_t>(entry.sequence));
    status_->set(StatusField::Inside, "1");
  }
}

void Monitor::leave() {
  const std::lock_guard lock(mutex_);
  if (!inside_) {
    return;
  }
  ring_[(entered_ - 1) % ring_.size()].end = Clock::now();
  inside_ = false;
  if (group_row_ != nullptr) {
    group_row_->inside.store(0, std::memory_order_relaxed);
  }
  set(StatusField::Inside, "0");
}

void Monitor::set(StatusField field, std::string_view value) {
  if (status_) {
    status_->set(field, value);
  }
}

void Monitor::note_phase(std::string_view phase) {
  const std::lock_guard lock(mutex_);
  set(StatusField::Phase, phase.substr(0, 48));
}

void Monitor::note_step(int64_t step) {
  const std::lock_guard lock(mutex_);
  table_->own().step.store(step, std::memory_order_relaxed);
  if (status_) {
    status_->set(StatusField::Step, step);
  }
}

void Monitor::note_checkpoint(std::string_view name) {
  const std::lock_guard lock(mutex_);
  set(StatusField::Checkpoint, name);
}

void Monitor::start(const std::filesystem::path& folder, double deadline_s) {
  std::unique_ptr<StatusFile> status;
  if (!folder.empty()) {
    status = std::make_unique<StatusFile>(folder, topology_.rank);
    status->set(StatusField::World, topology_.world_size);
    status->set(StatusField::Host, topology_.host);
    status->set(StatusField::Pid, int64_t{getpid()});
    status->set(StatusField::Started, unix_s());
    status->set(StatusField::Step, step());
    install_crash_handler(folder, topology_.rank, status->value(StatusField::Signal));
  }
  const std::lock_guard lock(mutex_);
  if (status_) {
    retired_.push_back(std::move(status_));
  }
  status_ = std::move(status);
  folder_ = folder;
  deadline_s_ = deadline_s;
  beat();
  if (!thread_.joinable()) {
    stopping_ = false;
    thread_ = std::thread([this] { watch(); });
  }
}

void Monitor::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    wake_.notify_all();
  }
  if (thread_.joinable()) {
    thread_.join();
  }
}

/// With the lock held.
void Monitor::beat() {
  table_->own().heartbeat_ms.store(monotonic_ms(), std::memory_order_relaxed);
  if (status_) {
    status_->set(StatusField::Heartbeat, monotonic_ms() / 1000);
    status_->set(StatusField::Time, unix_s());
  }
}

void Monitor::watch() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    beat();
    if (inside_ && deadline_s_ > 0) {
      const Record record = ring_[(entered_ - 1) % ring_.size()];
      const double seconds = std::chrono::duration<double>(Clock::now() - record.begin).count();
      if (seconds > deadline_s_) {
        const std::string text = hang_text(record, seconds);
        write_history(text);
        deadline_s_ = 0;  // once
        lock.unlock();
        end_job_(text);
        lock.lock();
      }
    }
    wake_.wait_for(lock, kBeat);
  }
}

std::string Monitor::hang_text(const Record& record, double seconds) const {
  const std::string late = late_neighbours(record) + late_elsewhere(record);
  return fmt::format(
      "rank {} (host {}, pid {}) waits in {} #{} ({}, {}) since {:.0f} s at step {}{}",
      topology_.rank,
      topology_.host,
      getpid(),
      record.op,
      record.sequence,
      record.group,
      bytes_text(record.bytes),
      seconds,
      table_->own().step.load(),
      late.empty() ? "; every rank that can be seen has entered it" : late);
}

std::string Monitor::late_neighbours(const Record& record) const {
  std::string text;
  for (int r = 0; r < table_->size(); ++r) {
    if (r == table_->local_rank()) {
      continue;
    }
    const RankRow& row = table_->row(r);
    const GroupRow* group = table_->find_group(r, record.group_id);
    const int64_t silent = monotonic_ms() - row.heartbeat_ms.load();
    const bool beats =
        row.heartbeat_ms.load() == 0 || silent < kSilentMs;  // 0: its watchdog was never started
    if (group != nullptr && (group->sequence.load() < record.sequence || !beats)) {
      text += fmt::format("; rank {} (pid {}) last seen at #{}, step {}",
                          row.world_rank.load(),
                          row.pid.load(),
                          group->sequence.load(),
                          row.step.load());
      text += beats ? "" : fmt::format(", no sign of life for {} s", silent / 1000);
    }
  }
  return text;
}

/// Ranks of other nodes, by their status files when the folder is shared.
std::string Monitor::late_elsewhere(const Record& record) const {
  std::string text;
  if (folder_.empty() || topology_.num_nodes == 1) {
    return text;
  }
  for (int rank = 0; rank < topology_.world_size; ++rank) {
    bool near = false;
    for (int r = 0; r < table_->size(); ++r) {
      near = near || table_->row(r).world_rank.load() == rank;
    }
    std::ifstream file(status_path(folder_, rank));
    if (near || !file) {
      continue;
    }
    std::ostringstream content;
    content << file.rdbuf();
    const std::string status = content.str();
    const uint64_t sequence = std::strtoull(status_value(status, "seq").c_str(), nullptr, 10);
    if (status_value(status, "group") == record.group && sequence < record.sequence) {
      text += fmt::format("; rank {} (host {}) last seen at #{}, step {}",
                          rank,
                          status_value(status, "host"),
                          sequence,
                          status_value(status, "step"));
    }
  }
  return text;
}

/// The last collectives of this rank, oldest first, beside the status file.
void Monitor::write_history(const std::string& text) const {
  if (folder_.empty()) {
    return;
  }
  std::ofstream file(folder_ / fmt::format("rank-{}.hang", topology_.rank), std::ios::trunc);
  file << text << "\nseq\top\tgroup\tbytes\tage_s\tduration_s\n";
  const uint64_t first = entered_ > ring_.size() ? entered_ - ring_.size() : 0;
  for (uint64_t i = first; i < entered_; ++i) {
    const Record& record = ring_[i % ring_.size()];
    const double age = std::chrono::duration<double>(Clock::now() - record.begin).count();
    const double took = std::chrono::duration<double>(record.end - record.begin).count();
    file << fmt::format("{}\t{}\t{}\t{}\t{:.3f}\t{}\n",
                        record.sequence,
                        record.op,
                        record.group,
                        record.bytes,
                        age,
                        took < 0 ? "waiting" : fmt::format("{:.6f}", took));
  }
}

}  // namespace kamerton::comm
