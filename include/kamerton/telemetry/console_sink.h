// SPDX-License-Identifier: Apache-2.0
// The one line a person watches.
#pragma once

#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>

#include "kamerton/core/clock.h"
#include "kamerton/telemetry/sink.h"

namespace kamerton::telemetry {

struct ConsoleOptions {
  int64_t total_steps = 0;  ///< the step at which the run ends
  int64_t first_step =
      0;  ///< steps done before this run (resume), so that the ETA counts this run's speed only
  std::optional<bool>
      in_place;  ///< redraw one line (a terminal) or add lines (a file); unset: ask the stream
  int64_t every_steps = 10;  ///< lines: at most one in so many steps ...
  double every_s =
      30.0;  ///< ... or when so much time has gone since the last line, whichever is first
  double redraw_s = 0.1;  ///< in place: at most one redraw in this time
  int width = 0;          ///< columns of the terminal; 0: ask the stream, 80 when it does not know
};

/// step/total, loss, lr, gradient norm, tokens/s, ETA, peak memory, from records of kind "train"
/// (names: see Record). The first and the last step are always shown. Records of other kinds are
/// shown as a line of their own.
class ConsoleSink : public Sink {
 public:
  /// `stream` and `clock` must outlive the sink. stdout belongs to a command's result: give stderr.
  ConsoleSink(std::FILE* stream, const core::Clock& clock, ConsoleOptions options);
  ~ConsoleSink() override;
  void write(const Record& record) override;
  /// Ends a line that is being redrawn.
  void flush() override;

 private:
  void write_step(const Record& record);
  bool is_due(int64_t step, double now_s) const;
  double eta_s(int64_t step, double now_s) const;
  int columns() const;

  std::FILE* stream_;
  const core::Clock& clock_;
  ConsoleOptions options_;
  bool in_place_;
  bool line_open_ = false;
  double start_s_;
  std::optional<double> last_shown_s_;
  int64_t last_shown_step_ = 0;
};

/// The progress line of a step in at most `columns` characters; fields that do not fit are left out
/// from the right. With `bar`, the room that is left shows a bar.
std::string progress_line(
    const Record& record, int64_t total_steps, double eta_s, int columns, bool bar);

}  // namespace kamerton::telemetry
