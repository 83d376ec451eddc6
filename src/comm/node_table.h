// SPDX-License-Identifier: Apache-2.0
// Where each rank of a node stands, readable by its neighbours without a message: a row a rank in
// shared memory.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include <mpi.h>

#include "shared_segment.h"

namespace kamerton::comm {

/// A rank's place in one group.
struct GroupRow {
  std::atomic<uint64_t> id;        ///< Identity::id; 0: the row is free
  std::atomic<uint64_t> sequence;  ///< the last collective that the rank entered
  std::atomic<uint32_t> inside;    ///< 1: it has not left it
};

struct RankRow {
  std::atomic<int32_t> world_rank;
  std::atomic<int32_t> pid;
  std::atomic<int64_t> step;
  std::atomic<int64_t> heartbeat_ms;  ///< monotonic clock of the node
  std::atomic<uint64_t> reported;     ///< digest of the error that this rank has printed; 0: none
  GroupRow groups[24];
};

class NodeTable {
 public:
  /// Collective over `node`. When shared memory cannot be had every rank sees its own row alone.
  NodeTable(MPI_Comm node, int world_rank);

  int size() const { return size_; }
  int local_rank() const { return local_rank_; }
  RankRow& row(int local_rank) const;
  RankRow& own() const { return row(local_rank_); }
  /// The row of a group, made when it is new; null when all are taken.
  GroupRow* own_group(uint64_t id) const;
  const GroupRow* find_group(int local_rank, uint64_t id) const;
  /// True when some rank of the node has printed this error.
  bool is_reported(uint64_t digest) const;

 private:
  int size_ = 1;
  int local_rank_ = 0;
  std::unique_ptr<SharedSegment> segment_;
  std::unique_ptr<RankRow> alone_;
};

}  // namespace kamerton::comm
