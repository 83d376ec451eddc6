// SPDX-License-Identifier: Apache-2.0
// Which pieces of which examples make a row, for a window of examples of known lengths.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace kamerton::data {

/// A stretch of an example.
struct Piece {
  int32_t element = 0;  ///< number of the example in the window
  int32_t begin = 0;    ///< its first token
  int32_t length = 0;
  int32_t number = 0;  ///< 0 for the first piece of an example, 1 for the next, ...
  bool operator==(const Piece&) const = default;
};

/// Rows in the order in which they are made.
class RowPlan {
 public:
  int64_t rows() const { return static_cast<int64_t>(starts_.size()) - 1; }
  std::span<const Piece> row(int64_t i) const {
    const size_t begin = starts_[static_cast<size_t>(i)];
    return std::span(pieces_).subspan(begin, starts_[static_cast<size_t>(i) + 1] - begin);
  }
  void add(const Piece& piece) { pieces_.push_back(piece); }
  void end_row() { starts_.push_back(pieces_.size()); }

 private:
  std::vector<Piece> pieces_;
  std::vector<size_t> starts_ = {0};
};

/// What is done with an example longer than a row.
enum class LongExamples { Cut, Split };

/// Best-fit decreasing as TRL's _pack_bfd (strategies bfd and bfd_split), tie order included: the
/// longest first, of equal ones the earlier; each into the row with the least room that holds it,
/// of equal ones the one that came to that room first. Examples of length 0 vanish. O(n log n).
/// arXiv 2404.10830.
RowPlan pack_best_fit(std::span<const int32_t> lengths,
                      int32_t row_length,
                      LongExamples long_examples);

/// End to end, cut at each row's end, as TRL's _pack_wrapped.
RowPlan pack_wrapped(std::span<const int32_t> lengths, int32_t row_length);

/// A row an example, the longest first, of equal ones the earlier.
RowPlan order_by_length(std::span<const int32_t> lengths);

}  // namespace kamerton::data
