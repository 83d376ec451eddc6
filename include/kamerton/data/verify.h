// SPDX-License-Identifier: Apache-2.0
// Refusing silent wrongness: what a run would train on without a word and should not.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kamerton/data/config.h"
#include "kamerton/data/dataset.h"

namespace kamerton::data {

enum class Severity { Note, Warning, Error };

/// One rule that records break. Never holds text of a record.
struct Finding {
  std::string rule;  ///< "special_marker"
  Severity severity = Severity::Warning;
  std::string what;                 ///< in words
  std::string remedy;               ///< what to do
  int64_t count = 0;                ///< records that break it
  int64_t of = 0;                   ///< records looked at
  std::vector<std::string> places;  ///< the first few: "file:line", with a remark
};

struct VerifyReport {
  std::string header;             ///< the data sets in words
  std::vector<Finding> findings;  ///< errors first, then by rule
  int64_t train_records = 0;
  int64_t eval_records = 0;
  int64_t tokens = 0;
  int64_t targets = 0;

  int64_t count(Severity severity) const;
  /// Each finding with its places and remedy, then a table of all.
  std::string text() const;
};

struct VerifyOptions {
  int threads = 1;
  bool duplicates = true;                       ///< also compare records with each other
  double similarity = 0.8;                      ///< Jaccard of word triples from which on records
                                                ///< are near-duplicates
  uint64_t memory_bytes = uint64_t{256} << 20;  ///< for keys; more lie in data.index_dir
};

/// Every record of data.train and data.eval: reads, tokenizes and masks it, and compares it with
/// the others. Linear in the data, memory bounded (a bit a record beyond memory_bytes). Throws for
/// what keeps it from looking at all (ErrorKind::Config, Io, Data: no file, no known layout).
VerifyReport verify(const DataConfig& config,
                    const text::TokenizerBundle& bundle,
                    int64_t max_positions,
                    const VerifyOptions& options);

/// The rules that need no whole pass, on up to 256 records of each set, and exact leakage between
/// sets small enough to be read in a moment. What `train` does at its start.
VerifyReport verify_quick(const Dataset& train, const Dataset* eval);

}  // namespace kamerton::data
