// SPDX-License-Identifier: Apache-2.0
// Groups over an MPI communicator: through shared memory inside a node, by MPI between nodes.
#pragma once

#include <memory>
#include <string>

#include <mpi.h>

#include "group_impl.h"
#include "mpi_options.h"
#include "shared_segment.h"

namespace kamerton::comm {

/// The best backend for the communicator's ranks. Collective. The communicator stays open until
/// MPI_Finalize: freeing it would be a collective in a destructor.
std::shared_ptr<GroupImpl> make_mpi_group(MPI_Comm comm,
                                          std::string name,
                                          uint64_t id,
                                          std::shared_ptr<Recorder> recorder,
                                          const MpiOptions& options);

/// What both backends over MPI share.
class MpiBase : public GroupImpl {
 public:
  MpiBase(MPI_Comm comm,
          Identity identity,
          std::shared_ptr<Recorder> recorder,
          const MpiOptions& options)
      : GroupImpl(std::move(identity), std::move(recorder)), comm_(comm), options_(options) {}

  bool takes(c10::Device device) const override { return device.is_cpu(); }
  std::shared_ptr<GroupImpl> split(int color, int key, const std::string& name) override;
  MPI_Comm mpi() const { return comm_; }

 protected:
  int rank() const { return identity().rank; }
  int size() const { return identity().size; }
  const MpiOptions& options() const { return options_; }

 private:
  MPI_Comm comm_;
  MpiOptions options_;
};

std::shared_ptr<GroupImpl> make_shared_group(MPI_Comm comm,
                                             Identity identity,
                                             std::shared_ptr<Recorder> recorder,
                                             const MpiOptions& options,
                                             std::unique_ptr<SharedSegment> segment);
/// Bytes a rank needs in the segment.
int64_t shared_group_bytes(int size, const MpiOptions& options);

std::shared_ptr<GroupImpl> make_exchange_group(MPI_Comm comm,
                                               Identity identity,
                                               std::shared_ptr<Recorder> recorder,
                                               const MpiOptions& options);

}  // namespace kamerton::comm
