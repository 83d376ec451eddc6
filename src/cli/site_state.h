// SPDX-License-Identifier: Apache-2.0
// What a site keeps from round to round, on disk: data position, rounding errors, control variates,
// personal parameters, optimizer moments. A round's state appears whole or not at all.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "kamerton/comm/group.h"
#include "kamerton/core/json.h"
#include "kamerton/federation/submission.h"
#include "kamerton/federation/vector_file.h"

namespace kamerton::cli {

/// <folder>/round-000003/: vectors, and state.json, written last.
class SiteState {
 public:
  explicit SiteState(std::filesystem::path folder);

  /// The newest complete state of a round before `round`; -1: none.
  int64_t last_before(int64_t round) const;
  bool complete(int64_t round) const;
  core::Json facts(int64_t round) const;

  /// A vector of a complete state; empty (false) when that round is -1 or has no such vector.
  federation::RangeFile open(int64_t round, const std::string& vector, int64_t elements) const;
  /// A vector of the state that is being made.
  federation::RangeFile create(int64_t round, const std::string& vector, int64_t elements) const;
  /// Removes what an interrupted attempt left. One rank.
  void begin(int64_t round) const;
  /// Publishes; removes states that are older than the one before. One rank, after all have
  /// written.
  void commit(int64_t round, const core::Json& facts) const;

 private:
  std::filesystem::path of(int64_t round) const;
  std::filesystem::path folder_;
};

}  // namespace kamerton::cli
