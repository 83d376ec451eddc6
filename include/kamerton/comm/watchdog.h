// SPDX-License-Identifier: Apache-2.0
// Watches the collectives of this process, leaves traces for a post-mortem, ends a job that hangs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

namespace kamerton::comm {

class Monitor;

/// A handle on the session's monitor; copies share it. Thread safe, never collective. Formats:
/// src/comm/README.md.
class Watchdog {
 public:
  explicit Watchdog(std::shared_ptr<Monitor> monitor) : monitor_(std::move(monitor)) {}

  /// Starts the thread and, when `folder` is not empty, keeps folder/rank-K.status and installs a
  /// crash handler that writes folder/rank-K.crash. A collective that lasts longer than
  /// `deadline_s` ends the job with exit code 76 and a message that names the late ranks; 0: never.
  /// May be called again with other values.
  void start(const std::filesystem::path& folder, double deadline_s) const;

  /// What the rank is doing: "load", "train", "save", "eval". At most 48 bytes are kept.
  void note_phase(std::string_view phase) const;
  /// The optimizer step that begins.
  void note_step(int64_t step) const;
  /// The newest complete checkpoint ("step-800"), for the message after a death.
  void note_checkpoint(std::string_view name) const;

 private:
  std::shared_ptr<Monitor> monitor_;
};

}  // namespace kamerton::comm
