// SPDX-License-Identifier: Apache-2.0
// Which records of general data are replayed beside a run's own.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace kamerton::data {

/// A list of records by number.
struct RecordList {
  int64_t size = 0;
  std::function<std::string(int64_t)> read;
};

/// How many replayed records make `ratio` of all beside `own` others.
int64_t replay_count(int64_t own, double ratio);

/// `count` of `size` records at random: a pure function, the same on every rank. In order.
std::vector<uint64_t> random_records(int64_t count, int64_t size);

/// The `count` records of `general` whose words are most like those of `own`: cosine of the
/// record's words, weighted by rarity (tf-idf over both), and the mean of `own`. In order of their
/// numbers; of equals the first. Reads both twice; 4 MiB of tables.
std::vector<uint64_t> similar_records(int64_t count,
                                      const RecordList& general,
                                      const RecordList& own);

}  // namespace kamerton::data
