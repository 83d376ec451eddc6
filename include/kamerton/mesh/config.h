// SPDX-License-Identifier: Apache-2.0
// How the ranks of a job are arranged.
#pragma once

#include <cstdint>

#include "kamerton/config/field.h"

namespace kamerton::mesh {

/// Sizes of the mesh's axes. Their product is the world size.
struct MeshConfig {
  int64_t replicate = 1;
  int64_t shard = 0;
};

inline void describe(config::Fields& f, MeshConfig& c) {
  f.knob("replicate",
         c.replicate,
         {.text = "copies of the sharded model; gradients are summed over them",
          .cost = "memory as if there were fewer ranks; less traffic between nodes",
          .min = 1});
  f.knob("shard",
         c.shard,
         {.text = "ranks that state, gradients and parameters are cut over (ZeRO); 0: all that "
                  "replicate leaves",
          .min = 0});
}

}  // namespace kamerton::mesh
