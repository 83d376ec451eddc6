// SPDX-License-Identifier: Apache-2.0
#include "shared_segment.h"

#include <cstdio>
#include <cstring>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "mpi_check.h"

namespace kamerton::comm {
namespace {

struct Invitation {
  char name[56] = "";  ///< empty: rank 0 could not make the file
  uint64_t token = 0;
};

constexpr int64_t round_up(int64_t value, int64_t unit) {
  return (value + unit - 1) / unit * unit;
}

/// Rank 0 makes the file; -1 when it cannot.
int open_new(Invitation& invitation, int64_t bytes) {
  if (getrandom(&invitation.token, sizeof invitation.token, 0) != sizeof invitation.token) {
    return -1;
  }
  std::snprintf(invitation.name,
                sizeof invitation.name,
                "/kamerton-%d-%016llx",
                static_cast<int>(getpid()),
                static_cast<unsigned long long>(invitation.token));
  const int file = shm_open(invitation.name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
  if (file >= 0 && ftruncate(file, bytes) == 0) {
    return file;
  }
  if (file >= 0) {
    close(file);
    shm_unlink(invitation.name);
  }
  invitation.name[0] = '\0';
  return -1;
}

}  // namespace

std::unique_ptr<SharedSegment> SharedSegment::map(int file,
                                                  int rank,
                                                  int64_t stride,
                                                  int64_t bytes) {
  if (file < 0) {
    return nullptr;
  }
  // Reserve our part now: a full /dev/shm is an answer here and a SIGBUS later.
  const bool reserved = (rank != 0 || posix_fallocate(file, 0, kHeader) == 0) &&
                        posix_fallocate(file, kHeader + rank * stride, stride) == 0;
  void* base =
      reserved
          ? mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0)
          : MAP_FAILED;
  if (base == MAP_FAILED) {
    return nullptr;
  }
  return std::unique_ptr<SharedSegment>(
      new SharedSegment(static_cast<std::byte*>(base), bytes, stride));
}

std::unique_ptr<SharedSegment> SharedSegment::create(MPI_Comm comm, int64_t bytes_per_rank) {
  int rank = 0;
  int size = 1;
  mpi_check(MPI_Comm_rank(comm, &rank));
  mpi_check(MPI_Comm_size(comm, &size));
  const int64_t stride = round_up(bytes_per_rank, 4096);
  const int64_t bytes = kHeader + stride * size;
  Invitation invitation;
  int file = rank == 0 ? open_new(invitation, bytes) : -1;
  std::unique_ptr<SharedSegment> segment;
  if (rank == 0) {
    segment = map(file, rank, stride, bytes);
    if (segment) {
      std::memcpy(segment->base_, &invitation.token, sizeof invitation.token);
    }
  }
  mpi_check(MPI_Bcast(&invitation, sizeof invitation, MPI_BYTE, 0, comm));
  if (rank != 0 && invitation.name[0] != '\0') {
    file = shm_open(invitation.name, O_RDWR | O_CLOEXEC, 0);
    segment = map(file, rank, stride, bytes);
  }
  int good = segment && std::memcmp(segment->base_, &invitation.token, sizeof invitation.token) == 0
                 ? 1
                 : 0;
  mpi_check(MPI_Allreduce(MPI_IN_PLACE, &good, 1, MPI_INT, MPI_MIN, comm));
  if (file >= 0) {
    close(file);
  }
  if (rank == 0 && invitation.name[0] != '\0') {
    shm_unlink(invitation.name);
  }
  return good == 1 ? std::move(segment) : nullptr;
}

SharedSegment::~SharedSegment() {
  munmap(base_, static_cast<size_t>(bytes_));
}

}  // namespace kamerton::comm
