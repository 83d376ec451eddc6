// SPDX-License-Identifier: Apache-2.0
// How groups over MPI move data. No choice changes the bits of a result.
#pragma once

#include <cstdint>

#include "kamerton/comm/group.h"

namespace kamerton::comm {

struct MpiOptions {
  bool shared_memory = true;  ///< ranks of one node exchange through shared memory
  int64_t staging_bytes =
      int64_t{1} << 20;         ///< of one of the two buffers a rank; they should stay in the cache
  bool oversubscribed = false;  ///< more ranks than cores on a node: do not spin
};

/// A group of all ranks of the job with other options than the session's, for tests and benchmarks.
/// Collective.
Group make_world_group(const MpiOptions& options);

}  // namespace kamerton::comm
