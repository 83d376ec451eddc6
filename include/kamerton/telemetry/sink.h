// SPDX-License-Identifier: Apache-2.0
// Where records go. The train loop knows this interface only.
#pragma once

#include "kamerton/telemetry/record.h"

namespace kamerton::telemetry {

/// Not thread-safe; used by one rank (rank 0) only. Nothing here communicates.
class Sink {
 public:
  virtual ~Sink() = default;
  /// Takes one record. File sinks throw ErrorKind::Io when the disk refuses.
  virtual void write(const Record& record) = 0;
  /// Makes what was written visible to readers of the file or terminal.
  virtual void flush() = 0;
};

}  // namespace kamerton::telemetry
