// SPDX-License-Identifier: Apache-2.0
#include "kamerton/telemetry/console_sink.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "kamerton/core/format.h"

namespace kamerton::telemetry {
namespace {

constexpr int kFallbackColumns = 80;
constexpr int kLongestBar = 30;
constexpr int kShortestBar = 8;

std::string show(const Value& value) {
  if (const auto* integer = std::get_if<int64_t>(&value)) {
    return std::to_string(*integer);
  }
  const auto* real = std::get_if<double>(&value);
  return real != nullptr ? fmt::format("{:.4g}", *real) : std::get<std::string>(value);
}

/// The fields in the order of their worth: those at the end go first when the line is too long.
std::vector<std::string> step_fields(const Record& record, int64_t total_steps, double eta_s) {
  const int digits = static_cast<int>(std::to_string(total_steps).size());
  std::vector<std::string> fields{fmt::format("step {:>{}}/{}", record.step, digits, total_steps)};
  const auto add = [&](std::string_view name, auto&& format_value) {
    if (record.find(name) != nullptr) {
      fields.push_back(format_value(record.number(name, std::nan(""))));
    }
  };
  add("loss", [](double value) { return fmt::format("loss {:.4f}", value); });
  add("lr", [](double value) { return fmt::format("lr {:.2e}", value); });
  add("grad_norm", [](double value) { return fmt::format("grad norm {:.3g}", value); });
  add("tokens_per_s",
      [](double value) { return fmt::format("{} tok/s", core::format_count(value)); });
  fields.push_back("ETA " + core::format_duration(eta_s));
  add("peak_rss_bytes", [](double value) {
    return "peak " + core::format_bytes(value > 0 ? static_cast<uint64_t>(value) : 0);
  });
  return fields;
}

/// " [####----]" in exactly `columns` characters.
std::string draw_bar(int64_t step, int64_t total_steps, int columns) {
  const int room = columns - 3;
  const double share =
      total_steps <= 0
          ? 1.0
          : std::clamp(static_cast<double>(step) / static_cast<double>(total_steps), 0.0, 1.0);
  const auto filled = static_cast<size_t>(std::lround(share * room));
  return " [" + std::string(filled, '#') + std::string(static_cast<size_t>(room) - filled, '-') +
         "]";
}

}  // namespace

std::string progress_line(
    const Record& record, int64_t total_steps, double eta_s, int columns, bool bar) {
  constexpr std::string_view kGap = " | ";
  const auto room = static_cast<size_t>(std::max(columns, 1));
  std::string line;
  for (const std::string& field : step_fields(record, total_steps, eta_s)) {
    const size_t gap = line.empty() ? 0 : kGap.size();
    if (line.size() + gap + field.size() > room) {
      break;
    }
    line += (gap == 0 ? "" : std::string(kGap)) + field;
  }
  const int rest = columns - static_cast<int>(line.size());
  if (bar && rest >= kShortestBar + 3) {
    line += draw_bar(record.step, total_steps, std::min(rest, kLongestBar + 3));
  }
  return line;
}

ConsoleSink::ConsoleSink(std::FILE* stream, const core::Clock& clock, ConsoleOptions options)
    : stream_(stream),
      clock_(clock),
      options_(options),
      in_place_(options.in_place.value_or(isatty(fileno(stream)) != 0)),
      start_s_(clock.now_s()),
      last_shown_step_(options.first_step) {}

ConsoleSink::~ConsoleSink() {
  flush();
}

int ConsoleSink::columns() const {
  if (options_.width > 0) {
    return options_.width;
  }
  winsize size{};
  if (in_place_ && ioctl(fileno(stream_), TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
    return size.ws_col;
  }
  return in_place_ ? kFallbackColumns : 200;  // a file has no edge
}

bool ConsoleSink::is_due(int64_t step, double now_s) const {
  const bool is_edge = !last_shown_s_ || step >= options_.total_steps;
  if (is_edge) {
    return true;
  }
  const double waited_s = now_s - *last_shown_s_;
  if (in_place_) {
    return waited_s >= options_.redraw_s;
  }
  return step - last_shown_step_ >= options_.every_steps || waited_s >= options_.every_s;
}

double ConsoleSink::eta_s(int64_t step, double now_s) const {
  const auto done = static_cast<double>(step - options_.first_step);
  if (done <= 0) {
    return std::nan("");
  }
  return (now_s - start_s_) / done *
         static_cast<double>(std::max<int64_t>(options_.total_steps - step, 0));
}

void ConsoleSink::write(const Record& record) {
  if (record.kind == "train") {
    write_step(record);
    return;
  }
  flush();
  std::string line = fmt::format("{} at step {}:", record.kind, record.step);
  for (const auto& [name, value] : record.values) {
    line += fmt::format(" {} {}", name, show(value));
  }
  fmt::print(stream_, "{}\n", line);
  std::fflush(stream_);
}

void ConsoleSink::write_step(const Record& record) {
  const double now_s = clock_.now_s();
  if (!is_due(record.step, now_s)) {
    return;
  }
  // One column stays free: a terminal that wraps at its edge would start a new line at each redraw.
  const int room = columns() - 1;
  const std::string line =
      progress_line(record, options_.total_steps, eta_s(record.step, now_s), room, in_place_);
  if (in_place_) {
    fmt::print(stream_, "\r{}\x1b[K", line);
    line_open_ = true;
  } else {
    fmt::print(stream_, "{}\n", line);
  }
  last_shown_s_ = now_s;
  last_shown_step_ = record.step;
  if (record.step >= options_.total_steps) {
    flush();
  }
  std::fflush(stream_);
}

void ConsoleSink::flush() {
  if (line_open_) {
    std::fputc('\n', stream_);
    line_open_ = false;
  }
  std::fflush(stream_);
}

}  // namespace kamerton::telemetry
