// SPDX-License-Identifier: Apache-2.0
// What a run has to say at one moment, free of any output format.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace kamerton::telemetry {

using Value = std::variant<int64_t, double, std::string>;

/// One moment of a run: a kind ("train", "eval", ...), a step, and named values in the order in
/// which they were added. The names that the console line looks for: loss, lr, grad_norm,
/// tokens_per_s, peak_rss_bytes.
struct Record {
  std::string kind = "train";
  int64_t step = 0;
  std::vector<std::pair<std::string, Value>> values;

  /// Appends; the caller keeps names unique. Returns *this, for chaining.
  Record& add(std::string_view name, int64_t value);
  Record& add(std::string_view name, double value);
  Record& add(std::string_view name, std::string_view value);
  /// nullptr when there is no such name.
  const Value* find(std::string_view name) const;
  /// The value as a number; `fallback` when it is missing or a string.
  double number(std::string_view name, double fallback) const;
};

}  // namespace kamerton::telemetry
