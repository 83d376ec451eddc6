// SPDX-License-Identifier: Apache-2.0
#include "kamerton/core/format.h"

#include <array>
#include <cmath>

#include <fmt/format.h>

namespace kamerton::core {

std::string format_bytes(uint64_t bytes) {
  static constexpr std::array<const char*, 7> kUnits = {
      "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1023.95 && unit + 1 < kUnits.size()) {  // 1023.95 would be shown as 1024.0
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string format_duration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0 || seconds > 1e9) {
    return "?";
  }
  if (seconds < 9.995) {
    return fmt::format("{:.2f} s", seconds);
  }
  const auto whole = static_cast<int64_t>(std::llround(seconds));
  if (whole < 60) {
    return fmt::format("{} s", whole);
  }
  if (whole < 3600) {
    return fmt::format("{}m{:02}s", whole / 60, whole % 60);
  }
  const int64_t minutes = whole / 60;
  if (minutes < 24 * 60) {
    return fmt::format("{}h{:02}m", minutes / 60, minutes % 60);
  }
  const int64_t hours = minutes / 60;
  return fmt::format("{}d{:02}h", hours / 24, hours % 24);
}

std::string format_count(double count) {
  static constexpr std::array<const char*, 5> kUnits = {"", "k", "M", "G", "T"};
  if (!std::isfinite(count)) {
    return "?";
  }
  size_t unit = 0;
  while (std::abs(count) >= 999.95 && unit + 1 < kUnits.size()) {
    count /= 1000;
    ++unit;
  }
  if (unit == 0 && count == std::floor(count)) {
    return fmt::format("{:.0f}", count);
  }
  return fmt::format("{:.1f}{}", count, kUnits[unit]);
}

}  // namespace kamerton::core
