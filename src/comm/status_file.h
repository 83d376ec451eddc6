// SPDX-License-Identifier: Apache-2.0
// A small text file in mapped memory: what it says survives a kill -9 of the process. Format:
// README.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

namespace kamerton::comm {

/// The lines, in the order of the file.
enum class StatusField {
  Version,
  Rank,
  World,
  Host,
  Pid,
  Started,
  Phase,
  Step,
  Op,
  Group,
  Bytes,
  Sequence,
  Inside,
  Heartbeat,
  Time,
  Checkpoint,
  Signal,
  kCount,
};

class StatusFile {
 public:
  /// Replaces folder/rank-K.status. Throws ErrorKind::Output.
  StatusFile(const std::filesystem::path& folder, int rank);
  ~StatusFile();
  StatusFile(const StatusFile&) = delete;
  StatusFile& operator=(const StatusFile&) = delete;

  void set(StatusField field, std::string_view value);
  void set(StatusField field, int64_t value);
  /// The 50 characters of a value: what a signal handler may write to.
  char* value(StatusField field) const;

  static constexpr int kLine = 64;
  static constexpr int kValue = 50;

 private:
  char* text_;
};

std::filesystem::path status_path(const std::filesystem::path& folder, int rank);

/// One value of a status file's text, empty when it has no such line.
std::string status_value(std::string_view text, std::string_view key);

}  // namespace kamerton::comm
