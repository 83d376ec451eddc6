// SPDX-License-Identifier: Apache-2.0
// Save on s ranks, load on l ranks, for all s and l that the job has.
#include <filesystem>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "kamerton/checkpoint/store.h"

#include "support/expect_error.h"
#include "support/mpi_world.h"
#include "unit/checkpoint/state_samples.h"

namespace kamerton::checkpoint {
namespace {

namespace fs = std::filesystem;

/// A folder that all ranks know and rank 0 removes.
class SharedFolder {
 public:
  explicit SharedFolder(const comm::Group& world) : world_(world) {
    std::string name;
    if (world.rank() == 0) {
      name = (fs::temp_directory_path() / "kamerton-dist-XXXXXX").string();
      EXPECT_NE(::mkdtemp(name.data()), nullptr);
    }
    path_ = world.broadcast(name, 0);
  }
  ~SharedFolder() {
    std::error_code ignored;
    if (world_.rank() == 0) {
      fs::remove_all(path_, ignored);
    }
  }
  const fs::path& path() const { return path_; }

 private:
  comm::Group world_;
  fs::path path_;
};

/// The first `size` ranks as a group; the others get a group of the rest.
comm::Group first_ranks(const comm::Group& world, int size) {
  return world.split(world.rank() < size ? 0 : 1, world.rank(), "first");
}

TEST(StoreOverMpi, LoadsOnAnyNumberOfRanksWithTheSameBits) {
  const auto& world = testing_support::mpi_world();
  for (int from = 1; from <= world.size(); ++from) {
    const SharedFolder folder(world);
    const auto savers = first_ranks(world, from);
    if (world.rank() < from) {
      Store store(folder.path(), savers);
      SampleShard shard(savers.rank(), savers.size(), 3, true);
      store.save(3, shard.slices(), {{"step", 3}});
    }
    world.barrier();
    for (int to = 1; to <= world.size(); ++to) {
      const auto loaders = first_ranks(world, to);
      int64_t wrong = 0;
      if (world.rank() < to) {
        const Store store(folder.path(), loaders, {.read_only = true});
        EXPECT_EQ(store.latest(), 3);
        SampleShard shard(loaders.rank(), loaders.size(), 3, false);
        store.load(3, shard.slices());
        wrong = shard.num_wrong();
        EXPECT_EQ(store.read_extra(3).at("step"), 3);
        store.verify(3);
      }
      EXPECT_EQ(world.sum(wrong), 0) << from << " -> " << to;
    }
    world.barrier();
  }
}

TEST(StoreOverMpi, OneRanksFailureReachesAllAndPublishesNothing) {
  const auto& world = testing_support::mpi_world();
  const SharedFolder folder(world);
  Store store(folder.path(), world);
  SampleShard good(world.rank(), world.size(), 1, true);
  store.save(1, good.slices(), {});
  SampleShard bad(world.rank(), world.size(), 2, true);
  if (world.rank() == world.size() - 1) {
    bad.slices()[0].length -= 1;
  }

  test::expect_error(
      core::ErrorKind::Internal, {"model.embed.weight"}, [&] { store.save(2, bad.slices(), {}); });
  EXPECT_EQ(store.list(), (std::vector<int64_t>{1}));
  EXPECT_EQ(store.latest(), 1);
  EXPECT_FALSE(fs::exists(folder.path() / ".saving-step-000002"));
  world.barrier();
}

}  // namespace
}  // namespace kamerton::checkpoint
