// SPDX-License-Identifier: Apache-2.0
#include "kamerton/telemetry/memory.h"

#include <algorithm>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>

#include <sys/resource.h>

namespace kamerton::telemetry {
namespace {

/// The figure of a line "Name:   123 kB" in bytes.
std::optional<int64_t> read_kb_field(const char* path, const std::string& name) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    if (line.starts_with(name + ":")) {
      std::istringstream rest(line.substr(name.size() + 1));
      int64_t kib = 0;
      return rest >> kib ? std::optional(kib * 1024) : std::nullopt;
    }
  }
  return std::nullopt;
}

std::optional<int64_t> read_number(const char* path) {
  std::ifstream file(path);
  int64_t value = 0;
  return file >> value ? std::optional(value) : std::nullopt;  // "max" is no number: no limit
}

/// What the control group of this process (version 2, as seen from inside a container) leaves; none
/// when unlimited.
std::optional<int64_t> room_in_control_group() {
  const auto limit = read_number("/sys/fs/cgroup/memory.max");
  const auto used = read_number("/sys/fs/cgroup/memory.current");
  if (!limit || !used) {
    return std::nullopt;
  }
  // File pages that can be dropped count as used there; what is inactive can be had.
  int64_t droppable = 0;
  std::ifstream stat("/sys/fs/cgroup/memory.stat");
  std::string name;
  for (int64_t value = 0; stat >> name >> value;) {
    if (name == "inactive_file") {
      droppable = value;
    }
  }
  return std::max<int64_t>(*limit - *used + droppable, 0);
}

}  // namespace

int64_t peak_rss_bytes() {
  if (const auto peak = read_kb_field("/proc/self/status", "VmHWM")) {
    return *peak;
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
}

int64_t current_rss_bytes() {
  return read_kb_field("/proc/self/status", "VmRSS").value_or(0);
}

int64_t available_memory_bytes() {
  const int64_t machine = read_kb_field("/proc/meminfo", "MemAvailable").value_or(0);
  const auto group = room_in_control_group();
  return group && machine > 0 ? std::min(machine, *group) : machine;
}

}  // namespace kamerton::telemetry
