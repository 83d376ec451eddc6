// SPDX-License-Identifier: Apache-2.0
#include "mpi_group.h"

#include "mpi_check.h"

namespace kamerton::comm {
namespace {

/// True on all ranks or on none.
bool lies_on_one_node(MPI_Comm comm, int size) {
  MPI_Comm node = MPI_COMM_NULL;
  mpi_check(MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node));
  int node_size = 0;
  mpi_check(MPI_Comm_size(node, &node_size));
  mpi_check(MPI_Comm_free(&node));
  return node_size == size;
}

}  // namespace

std::shared_ptr<GroupImpl> make_mpi_group(MPI_Comm comm,
                                          std::string name,
                                          uint64_t id,
                                          std::shared_ptr<Recorder> recorder,
                                          const MpiOptions& options) {
  mpi_check(MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN));
  Identity self{.name = std::move(name), .id = id};
  mpi_check(MPI_Comm_rank(comm, &self.rank));
  mpi_check(MPI_Comm_size(comm, &self.size));
  if (self.size == 1) {
    return make_solo_group(std::move(self), std::move(recorder));
  }
  if (options.shared_memory && lies_on_one_node(comm, self.size)) {
    auto segment = SharedSegment::create(comm, shared_group_bytes(self.size, options));
    if (segment) {
      return make_shared_group(
          comm, std::move(self), std::move(recorder), options, std::move(segment));
    }
  }
  return make_exchange_group(comm, std::move(self), std::move(recorder), options);
}

std::shared_ptr<GroupImpl> MpiBase::split(int color, int key, const std::string& name) {
  MPI_Comm part = MPI_COMM_NULL;
  mpi_check(MPI_Comm_split(comm_, color, key, &part));
  return make_mpi_group(part, name, child_id(color), recorder(), options_);
}

Group make_world_group(const MpiOptions& options) {
  MPI_Comm copy = MPI_COMM_NULL;
  mpi_check(MPI_Comm_dup(MPI_COMM_WORLD, &copy));
  return Group(make_mpi_group(copy, "world", 2, nullptr, options));
}

}  // namespace kamerton::comm
