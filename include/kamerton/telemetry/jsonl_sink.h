// SPDX-License-Identifier: Apache-2.0
// metrics.jsonl: one line a step, readable by anything.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>

#include "kamerton/telemetry/sink.h"

namespace kamerton::telemetry {

/// A line is {"step": N, <values in their order>}; numbers that are not finite are null (JSON has
/// no others). Each line is complete on disk order: written with one call and flushed, so a killed
/// run leaves whole lines and at most one torn last line, which the next start removes.
class JsonlSink : public Sink {
 public:
  /// Appends to `path` (created when absent). `next_step` is the first step that this run will
  /// write: lines of that step and later ones, left by a run that went further than its last
  /// checkpoint, are dropped, so each step has exactly one line. A fresh run gives 0. Throws
  /// ErrorKind::Output when the file cannot be opened, ErrorKind::Io when it cannot be read or
  /// written. `kind`: the sink takes records of this kind only.
  JsonlSink(std::string path, int64_t next_step, std::string kind = "train");
  void write(const Record& record) override;
  void flush() override;

 private:
  struct Close {
    void operator()(std::FILE* file) const noexcept { std::fclose(file); }
  };
  std::string path_;
  std::string kind_;
  std::unique_ptr<std::FILE, Close> file_;
};

/// The line of a record, with its newline.
std::string to_json_line(const Record& record);

}  // namespace kamerton::telemetry
