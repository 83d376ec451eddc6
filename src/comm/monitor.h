// SPDX-License-Identifier: Apache-2.0
// Hears of every collective; shows it to the neighbours (node table) and to the living after us
// (status file); a thread looks whether the present one is late.
#pragma once

#include <array>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "kamerton/comm/session.h"

#include "node_table.h"
#include "recorder.h"
#include "status_file.h"

namespace kamerton::comm {

class Monitor final : public Recorder {
 public:
  /// `end_job` is called from the monitor's thread with the message of a hang; it does not return
  /// in a real job.
  using EndJob = std::function<void(const std::string& text)>;
  Monitor(Topology topology, std::shared_ptr<NodeTable> table, EndJob end_job);
  ~Monitor() override;

  void enter(const Entry& entry) override;
  void leave() override;
  void fail(std::string_view text) override { end_job_(std::string(text)); }

  void start(const std::filesystem::path& folder, double deadline_s);
  void stop();
  void note_phase(std::string_view phase);
  void note_step(int64_t step);
  void note_checkpoint(std::string_view name);
  int64_t step() const { return table_->own().step.load(); }

 private:
  using Clock = std::chrono::steady_clock;
  struct Record {
    uint64_t sequence = 0;
    uint64_t group_id = 0;
    int64_t bytes = 0;
    std::string_view op;
    char group[32] = "";
    Clock::time_point begin;
    Clock::time_point end;  ///< before begin: not over
  };

  void watch();
  void beat();
  std::string hang_text(const Record& record, double seconds) const;
  std::string late_neighbours(const Record& record) const;
  std::string late_elsewhere(const Record& record) const;
  void write_history(const std::string& text) const;
  void set(StatusField field, std::string_view value);

  const Topology topology_;
  const std::shared_ptr<NodeTable> table_;
  const EndJob end_job_;
  mutable std::mutex mutex_;  ///< guards what follows
  std::condition_variable wake_;
  std::array<Record, 64> ring_{};
  uint64_t entered_ = 0;
  bool inside_ = false;
  bool stopping_ = false;
  double deadline_s_ = 0;
  GroupRow* group_row_ = nullptr;
  std::filesystem::path folder_;
  std::unique_ptr<StatusFile> status_;
  std::vector<std::unique_ptr<StatusFile>> retired_;  ///< a crash handler may still point into them
  std::thread thread_;
};

}  // namespace kamerton::comm
