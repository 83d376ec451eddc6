// SPDX-License-Identifier: Apache-2.0
// Scalars for TensorBoard, written without its libraries.
#pragma once

#include <cstdio>
#include <functional>
#include <memory>
#include <string>

#include "kamerton/telemetry/sink.h"

namespace kamerton::telemetry {

/// One event file `events.out.tfevents.<unix time>.<label>` in `folder`; a resumed run adds a file
/// of its own, and TensorBoard lays later steps over earlier ones. Each number of a record becomes
/// the scalar "<kind>/<name>"; strings are left out; numbers that are not finite are kept
/// (TensorBoard marks them).
class TensorboardSink : public Sink {
 public:
  /// `wall_time_s` gives seconds since the epoch; a test puts its own here. Throws
  /// ErrorKind::Output when folder or file cannot be made.
  TensorboardSink(const std::string& folder,
                  const std::string& label,
                  std::function<double()> wall_time_s = unix_time_s);
  void write(const Record& record) override;
  void flush() override;
  const std::string& path() const { return path_; }

  static double unix_time_s();

 private:
  struct Close {
    void operator()(std::FILE* file) const noexcept { std::fclose(file); }
  };
  void write_frame(const std::string& event);

  std::function<double()> wall_time_s_;
  std::string path_;
  std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace kamerton::telemetry
