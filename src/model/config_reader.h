// SPDX-License-Identifier: Apache-2.0
// Typed reading of config.json with defaults, ranges, and keys that have an old and a new spelling.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kamerton/core/json.h"

namespace kamerton::model {

class ConfigReader {
 public:
  /// `object` must outlive the reader. `path` prefixes keys in messages ("rope_parameters.").
  ConfigReader(const core::Json& object, std::string origin, std::string path = {});

  /// The value under any of the spellings (first: the current one), or null when none has a value
  /// other than null. Throws ErrorKind::Data when two spellings are present and differ.
  const core::Json* find(std::initializer_list<std::string_view> spellings) const;

  /// An integer in [1, limit]; `fallback` when absent.
  int64_t size(std::initializer_list<std::string_view> spellings,
               int64_t fallback,
               int64_t limit) const;
  /// As size; 0 when the key is null, `fallback` when it is missing.
  int64_t size_or_none(std::string_view key, int64_t fallback, int64_t limit) const;
  double number(std::initializer_list<std::string_view> spellings, double fallback) const;
  /// A finite number > 0.
  double positive(std::initializer_list<std::string_view> spellings, double fallback) const;
  /// As positive; 0 when the key is null, `fallback` when it is missing.
  double positive_or_none(std::string_view key, double fallback) const;
  /// A list of finite numbers > 0; empty when absent.
  std::vector<double> positives(std::string_view key) const;
  bool flag(std::string_view key, bool fallback) const;
  std::string text(std::initializer_list<std::string_view> spellings,
                   const std::string& fallback) const;
  std::optional<int64_t> token(std::string_view key) const;
  /// One id or a list of ids.
  std::vector<int64_t> tokens(std::string_view key) const;
  std::vector<std::string> texts(std::string_view key) const;

  const core::Json& object() const { return object_; }
  const std::string& origin() const { return origin_; }
  /// Throws ErrorKind::Data about `key`.
  [[noreturn]] void refuse(std::string_view key,
                           const std::string& what,
                           const std::string& got,
                           const std::string& allowed) const;

 private:
  const core::Json& object_;
  std::string origin_;
  std::string path_;
};

}  // namespace kamerton::model
