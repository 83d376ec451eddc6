// SPDX-License-Identifier: Apache-2.0
// Byte-pair merging of a long row of symbols, a window at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "token_map.h"

namespace kamerton::text {

/// A merge as the tables have it: rank << 32 | the whole token.
inline uint32_t rank_of(uint64_t merge) {
  return static_cast<uint32_t>(merge >> 32);
}
inline int32_t whole_of(uint64_t merge) {
  return static_cast<int32_t>(merge & 0xFFFFFFFF);
}

/// A token, or a character that is not merged yet.
struct Symbol {
  int32_t id;
  uint32_t length;  ///< bytes of the word
};

/// Merges as one heap over the whole row would: lowest rank first, the leftmost of equals, until
/// none is left. It works in windows that stay in the cache, and keeps of each only what no symbol
/// behind the window can change, whatever the ranks (they need not grow with the tokens): time
/// grows with the row, not faster.
class LongMerge {
  struct Node {
    int32_t id;
    uint32_t length;  ///< 0: swallowed by the node before it
    int32_t previous;
    int32_t next;
  };
  struct Candidate {
    uint64_t order;  ///< rank << 32 | position
    int32_t whole;
    bool operator<(const Candidate& other) const { return order > other.order; }  // for a min-heap
  };

 public:
  static constexpr size_t kWindow = 8192;  ///< symbols

  /// Memory to use again for the next row.
  struct Scratch {
    std::vector<Node> nodes = {};
    std::vector<Candidate> heap = {};
  };

  /// `left_ranks`: MergeMap::lowest_ranks_by_left() of `merges`. All must outlive this.
  LongMerge(const MergeMap& merges,
            std::span<const uint32_t> left_ranks,
            Scratch& scratch,
            size_t window = kWindow)
      : merges_(merges),
        left_ranks_(left_ranks),
        window_(window),
        nodes_(scratch.nodes),
        heap_(scratch.heap) {}

  /// In place; the row becomes shorter.
  void run(std::vector<Symbol>& row);

 private:
  size_t merge_window(std::span<const Symbol> row, bool open_end);
  void link(std::span<const Symbol> row);
  bool add_candidate(int32_t left);
  void doubt(uint32_t rank);
  void join(int32_t at, int32_t whole);

  const MergeMap& merges_;
  std::span<const uint32_t> left_ranks_;
  size_t window_;
  std::vector<Node>& nodes_;
  std::vector<Candidate>& heap_;
  int32_t doubtful_ = 0;  ///< the first node that symbols behind the window may change
  int32_t sure_ = -1;     ///< the node before it
};

}  // namespace kamerton::text
