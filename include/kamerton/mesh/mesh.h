// SPDX-License-Identifier: Apache-2.0
// Ranks on named axes: replicate x shard. Ranks of a shard group are neighbours, so that the heavy
// traffic stays in a node.
#pragma once

#include <string>

#include "kamerton/comm/group.h"
#include "kamerton/mesh/config.h"

namespace kamerton::mesh {

/// Axis sizes that fit a world.
struct Extents {
  int replicate = 1;
  int shard = 1;
};

/// A pure function: every rank finds the same extents or the same error before the first
/// collective. ErrorKind::Config when the product is not the world size, naming the sizes that
/// would do.
Extents fit(const MeshConfig& config, int world_size);

class Mesh {
 public:
  Mesh(const Extents& extents, comm::Group world, comm::Group replicate, comm::Group shard);

  const comm::Group& world() const { return world_; }
  /// Ranks that hold the same shard.
  const comm::Group& replicate() const { return replicate_; }
  /// Ranks that the model is cut over.
  const comm::Group& shard() const { return shard_; }
  const Extents& extents() const { return extents_; }
  /// "replicate 2 x shard 4 (8 ranks)"
  std::string describe() const;

 private:
  Extents extents_;
  comm::Group world_;
  comm::Group replicate_;
  comm::Group shard_;
};

/// Collective over `world`.
Mesh build(const MeshConfig& config, const comm::Group& world);

}  // namespace kamerton::mesh
