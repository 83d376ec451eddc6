// SPDX-License-Identifier: Apache-2.0
// Who hears of every collective's begin and end: the watchdog, the status file, the peers' progress
// table.
#pragma once

#include <cstdint>
#include <string_view>

namespace kamerton::comm {

/// One collective as it is entered. `op` points to a string literal.
struct Entry {
  uint64_t sequence = 0;  ///< per group, from 1
  std::string_view op;
  std::string_view group;
  uint64_t group_id = 0;
  int64_t bytes = 0;
};

class Recorder {
 public:
  virtual ~Recorder() = default;
  virtual void enter(const Entry& entry) = 0;
  virtual void leave() = 0;
  /// A backend found that a peer is lost. May not return.
  virtual void fail(std::string_view text) = 0;
};

}  // namespace kamerton::comm
