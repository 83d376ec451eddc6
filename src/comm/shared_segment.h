// SPDX-License-Identifier: Apache-2.0
// Memory that the ranks of one node see together: an unlinked POSIX shared-memory file, one part a
// rank.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include <mpi.h>

namespace kamerton::comm {

class SharedSegment {
 public:
  /// Collective over `comm`, whose ranks share a node. Zero-filled, 64-byte aligned parts. Null on
  /// all ranks when one of them cannot have it (no room in /dev/shm, separate containers). No file
  /// is left behind.
  static std::unique_ptr<SharedSegment> create(MPI_Comm comm, int64_t bytes_per_rank);
  ~SharedSegment();
  SharedSegment(const SharedSegment&) = delete;
  SharedSegment& operator=(const SharedSegment&) = delete;

  std::byte* part(int rank) const { return base_ + kHeader + rank * stride_; }

 private:
  static constexpr int64_t kHeader =
      4096;  ///< holds the token that tells files of equal name apart
  SharedSegment(std::byte* base, int64_t bytes, int64_t stride)
      : base_(base), bytes_(bytes), stride_(stride) {}
  static std::unique_ptr<SharedSegment> map(int file, int rank, int64_t stride, int64_t bytes);

  std::byte* base_;
  int64_t bytes_;
  int64_t stride_;
};

}  // namespace kamerton::comm
