// SPDX-License-Identifier: Apache-2.0
// Looking at data: which tokens are trained, how long examples are.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kamerton/data/dataset.h"

namespace kamerton::data {

struct ShowOptions {
  bool color = true;  ///< ANSI colours; without, trained stretches stand in [[ ]]
  bool ids = false;   ///< token ids after each token
};

/// The tokens of one example with the trained ones marked, control characters made visible, and a
/// line with origin and counts.
std::string show_example(const Dataset& set, int64_t index, const ShowOptions& options);
/// `data show`: the summary, then examples `indices`.
std::string show(const Dataset& set, std::span<const int64_t> indices, const ShowOptions& options);

/// What one file brings.
struct SourceStats {
  std::string name;
  int64_t examples = 0;
  int64_t tokens = 0;
  int64_t targets = 0;
  int64_t truncated = 0;
};

struct Stats {
  int64_t examples = 0, skipped = 0, truncated = 0;
  int64_t tokens = 0, targets = 0, characters = 0;
  int32_t shortest = 0, median = 0, p90 = 0, p99 = 0, longest = 0;
  double mean = 0;
  int64_t sequence_length = 0;
  /// Rows that packing would fill, and the share of their places that hold tokens.
  std::string packing_strategy;
  int64_t packed_rows = 0;
  double packed_fill = 0;
  std::vector<int64_t>
      histogram;              ///< examples by length, kHistogramBins equal bins up to `longest`
  int64_t cut_tokens = 0;     ///< tokens that truncation takes away
  int64_t longest_whole = 0;  ///< the longest example before it is cut
  std::vector<int64_t> whole_histogram;  ///< before cutting, kPictureBins bins up to longest_whole
  std::vector<SourceStats> sources;      ///< in order of the files
};
inline constexpr int kHistogramBins = 16;
inline constexpr int kPictureBins = 48;

/// Over the first `limit` examples (all when negative), in parallel over `threads` threads.
Stats measure(const Dataset& set, int64_t limit, int threads);
/// `data stats`: the above as text with a histogram.
std::string stats_text(const Stats& stats, const Summary& summary);

}  // namespace kamerton::data
