// SPDX-License-Identifier: Apache-2.0
// What a coordinator has decided, on disk before anyone is told: one line of JSON an event.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "kamerton/core/json.h"

namespace kamerton::federation {

class Journal {
 public:
  /// Opens or creates. A last line that was cut off by a crash is dropped; damage before it is
  /// ErrorKind::Data (each line carries the digest of its text and of the line before).
  explicit Journal(const std::filesystem::path& path);
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  /// Events that were there when it was opened, oldest first.
  const std::vector<core::Json>& past() const { return past_; }
  /// On the disk when it returns (fsync).
  void append(const core::Json& event);

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  std::string last_digest_;
  std::vector<core::Json> past_;
};

}  // namespace kamerton::federation
