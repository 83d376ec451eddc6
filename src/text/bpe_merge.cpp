// SPDX-License-Identifier: Apache-2.0
// What lies behind a window is unknown, and so is when its first symbol would merge with the
// window's last one: from the moment on at which the last token could be the left part of any
// merge, it is in doubt; from then on its own left neighbour may meet a token that is unknown, and
// so forth. A token that is never in doubt came about as it would in the whole row, and no merge
// ever reached over its end: the row can be cut behind it.
#include "bpe_merge.h"

#include <algorithm>

namespace kamerton::text {
void LongMerge::run(std::vector<Symbol>& row) {
  size_t done = 0;  // symbols of the row that are merged; what they became stands in [0, out)
  size_t out = 0;
  for (size_t window = window_; done < row.size();) {
    const size_t count = std::min(window, row.size() - done);
    const bool open_end = done + count < row.size();
    const size_t settled = merge_window({row.data() + done, count}, open_end);
    if (open_end && settled < std::max<size_t>(count / 2, 1)) {
      window *= 2;  // doubt reaches far in this text
      continue;
    }
    for (int32_t i = 0; i >= 0 && static_cast<size_t>(i) < settled;) {
      const Node& node = nodes_[static_cast<size_t>(i)];
      row[out++] = {node.id, node.length};
      i = node.next;
    }
    done += settled;
    window = std::max(window_, window / 2);
  }
  row.resize(out);
  if (nodes_.capacity() > (1u << 20)) {
    std::vector<Node>().swap(nodes_);
    std::vector<Candidate>().swap(heap_);
  }
}

void LongMerge::link(std::span<const Symbol> row) {
  const auto n = static_cast<int32_t>(row.size());
  nodes_.resize(row.size());
  for (int32_t i = 0; i < n; ++i) {
    const Symbol& symbol = row[static_cast<size_t>(i)];
    nodes_[static_cast<size_t>(i)] = {symbol.id, symbol.length, i - 1, i + 1 < n ? i + 1 : -1};
  }
  heap_.clear();
  for (int32_t i = 0; i + 1 < n; ++i) {
    add_candidate(i);
  }
  std::make_heap(heap_.begin(), heap_.end());
}

bool LongMerge::add_candidate(int32_t left) {
  const Node& node = nodes_[static_cast<size_t>(left)];
  if (node.next < 0) {
    return false;
  }
  const uint64_t merge = merges_.find(node.id, nodes_[static_cast<size_t>(node.next)].id);
  if (merge == MergeMap::kNone) {
    return false;
  }
  heap_.push_back({merge >> 32 << 32 | static_cast<uint32_t>(left), whole_of(merge)});
  return true;
}

/// Merges up to `rank` may have happened: so may any of the last sure token and what follows it.
void LongMerge::doubt(uint32_t rank) {
  while (sure_ >= 0) {
    const Node& node = nodes_[static_cast<size_t>(sure_)];
    const auto id = static_cast<size_t>(node.id);
    if (id >= left_ranks_.size() || left_ranks_[id] > rank) {
      return;
    }
    doubtful_ = sure_;
    sure_ = node.previous;
  }
}

void LongMerge::join(int32_t at, int32_t whole) {
  Node& left = nodes_[static_cast<size_t>(at)];
  const int32_t gone = left.next;
  Node& right = nodes_[static_cast<size_t>(gone)];
  left.id = whole;
  left.length += right.length;
  left.next = right.next;
  right.length = 0;
  if (left.next >= 0) {
    nodes_[static_cast<size_t>(left.next)].previous = at;
  }
  sure_ = sure_ == gone ? at : sure_;
  if (left.previous >= 0 && add_candidate(left.previous)) {
    std::push_heap(heap_.begin(), heap_.end());
  }
  if (add_candidate(at)) {
    std::push_heap(heap_.begin(), heap_.end());
  }
}

/// How many symbols of the row nothing behind it can change; all of them where nothing is behind.
size_t LongMerge::merge_window(std::span<const Symbol> row, bool open_end) {
  link(row);
  doubtful_ = static_cast<int32_t>(row.size());
  sure_ = open_end ? doubtful_ - 1 : -1;
  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end());
    const Candidate top = heap_.back();
    heap_.pop_back();
    doubt(rank_of(top.order));
    const auto at = static_cast<int32_t>(top.order & 0xFFFFFFFF);
    const Node& left = nodes_[static_cast<size_t>(at)];
    if (at >= doubtful_ || left.length == 0 || left.next < 0) {
      continue;
    }
    const uint64_t now = merges_.find(left.id, nodes_[static_cast<size_t>(left.next)].id);
    if (now == MergeMap::kNone || whole_of(now) != top.whole) {
      continue;  // one of the two has been merged since
    }
    if (at == sure_) {  // with a token that is in doubt
      doubtful_ = sure_;
      sure_ = left.previous;
      continue;
    }
    join(at, top.whole);
  }
  doubt(MergeMap::kNoRank - 1);
  return static_cast<size_t>(doubtful_);
}

}  // namespace kamerton::text
