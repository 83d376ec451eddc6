// SPDX-License-Identifier: Apache-2.0
#include "node_table.h"

#include <unistd.h>

#include "mpi_check.h"

namespace kamerton::comm {

NodeTable::NodeTable(MPI_Comm node, int world_rank) {
  mpi_check(MPI_Comm_size(node, &size_));
  mpi_check(MPI_Comm_rank(node, &local_rank_));
  segment_ = size_ > 1 ? SharedSegment::create(node, sizeof(RankRow)) : nullptr;
  if (!segment_) {
    size_ = 1;
    local_rank_ = 0;
    alone_ = std::make_unique<RankRow>();
  }
  own().pid.store(getpid());
  own().step.store(-1);
  own().world_rank.store(world_rank);
  mpi_check(MPI_Barrier(node));  // every row is filled from here on
}

RankRow& NodeTable::row(int local_rank) const {
  return segment_ ? *reinterpret_cast<RankRow*>(segment_->part(local_rank)) : *alone_;
}

GroupRow* NodeTable::own_group(uint64_t id) const {
  for (GroupRow& group : own().groups) {
    const uint64_t known = group.id.load(std::memory_order_relaxed);
    if (known == 0) {
      group.id.store(id, std::memory_order_release);
    }
    if (known == 0 || known == id) {
      return &group;
    }
  }
  return nullptr;
}

const GroupRow* NodeTable::find_group(int local_rank, uint64_t id) const {
  for (const GroupRow& group : row(local_rank).groups) {
    if (group.id.load(std::memory_order_acquire) == id) {
      return &group;
    }
  }
  return nullptr;
}

bool NodeTable::is_reported(uint64_t digest) const {
  for (int r = 0; r < size_; ++r) {
    if (row(r).reported.load(std::memory_order_acquire) == digest) {
      return true;
    }
  }
  return false;
}

}  // namespace kamerton::comm
