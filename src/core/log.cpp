// SPDX-License-Identifier: Apache-2.0
#include "kamerton/core/log.h"

#include <atomic>
#include <string>

#include <fmt/format.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

namespace kamerton::core {
namespace {

/// The one piece of process-wide state of this module: stderr is process-wide too.
struct Log {
  spdlog::logger logger{"kamerton", std::make_shared<spdlog::sinks::stderr_color_sink_mt>()};
  std::atomic<int> rank{0};
  std::atomic<int> world_size{1};

  Log() {
    // On a terminal a progress bar may stand in the line: clear it first.
    const std::string clear = isatty(STDERR_FILENO) != 0 ? "\r\x1b[K" : "";
    logger.set_pattern(clear + "[%H:%M:%S] %^%v%$");
    logger.flush_on(spdlog::level::trace);
  }
};

Log& the_log() {
  static Log log;
  return log;
}

spdlog::level::level_enum to_spdlog(LogLevel level) {
  switch (level) {
    case LogLevel::Debug:
      return spdlog::level::debug;
    case LogLevel::Info:
      return spdlog::level::info;
    case LogLevel::Warning:
      return spdlog::level::warn;
    case LogLevel::Error:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

void write(LogLevel level, std::string_view label, std::string_view line) {
  Log& log = the_log();
  const bool speaks = log.rank == 0 || level >= LogLevel::Warning;
  if (!speaks) {
    return;
  }
  const std::string who = log.world_size > 1 && level >= LogLevel::Warning
                              ? fmt::format("rank {}: ", log.rank.load())
                              : "";
  log.logger.log(to_spdlog(level), "{}{}{}", label, who, line);
}

}  // namespace

void configure_log(int rank, int world_size, LogLevel level) {
  Log& log = the_log();
  log.rank = rank;
  log.world_size = world_size;
  log.logger.set_level(to_spdlog(level));
}

void log_info(std::string_view line) {
  write(LogLevel::Info, "", line);
}

void log_debug(std::string_view line) {
  write(LogLevel::Debug, "debug: ", line);
}

void log_warning(std::string_view line) {
  write(LogLevel::Warning, "warning: ", line);
}

void log_error(std::string_view line) {
  write(LogLevel::Error, "error: ", line);
}

}  // namespace kamerton::core
