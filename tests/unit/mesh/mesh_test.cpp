// SPDX-License-Identifier: Apache-2.0
#include "kamerton/mesh/mesh.h"

#include <gmock/gmock.h>

#include "kamerton/comm/local_group.h"
#include "kamerton/core/error.h"
#include "kamerton/mesh/threads.h"

namespace kamerton::mesh {
namespace {

TEST(Mesh, ShardTakesWhatReplicateLeaves) {
  EXPECT_EQ(fit({}, 6).shard, 6);
  EXPECT_EQ(fit({.replicate = 2}, 6).shard, 3);
  EXPECT_EQ(fit({.replicate = 3, .shard = 2}, 6).replicate, 3);
}

TEST(Mesh, ProductThatIsNotTheWorldIsRefusedWithTheDivisors) {
  for (const MeshConfig& config : {MeshConfig{.replicate = 4},
                                   MeshConfig{.shard = 4},
                                   MeshConfig{.replicate = 2, .shard = 2},
                                   MeshConfig{.replicate = 7}}) {
    try {
      fit(config, 6);
      FAIL() << "no error";
    } catch (const core::Error& error) {
      EXPECT_EQ(error.kind(), core::ErrorKind::Config);
      EXPECT_THAT(error.what(), testing::HasSubstr("1, 2, 3, 6"));
    }
  }
}

TEST(Mesh, ShardGroupsAreNeighboursAndReplicasHoldTheSameShard) {
  comm::run_local(6, [](comm::Group world) {
    const Mesh mesh = build({.replicate = 2}, world);

    EXPECT_EQ(mesh.shard().size(), 3);
    EXPECT_EQ(mesh.shard().rank(), world.rank() % 3);
    EXPECT_EQ(mesh.replicate().size(), 2);
    EXPECT_EQ(mesh.replicate().rank(), world.rank() / 3);
    EXPECT_EQ(mesh.shard().sum(int64_t{world.rank()}), world.rank() < 3 ? 3 : 12);
  });
}

TEST(Threads, AreTheCoresSharedAmongTheRanksUnlessTheUserSaysOtherwise) {
  comm::Topology topology;
  topology.cores = topology.cores_per_node = 8;
  topology.ranks_sharing_cores = 3;
  EXPECT_EQ(threads_of_rank(topology), 2);
  topology.requested_threads = 5;
  EXPECT_EQ(threads_of_rank(topology), 5);
  topology.requested_threads = 0;
  topology.cores = 4;  // bound by the launcher
  topology.ranks_sharing_cores = 1;
  EXPECT_EQ(threads_of_rank(topology), 4);
  topology.cores = 1;
  topology.ranks_sharing_cores = 2;
  EXPECT_EQ(threads_of_rank(topology), 1);
}

}  // namespace
}  // namespace kamerton::mesh
