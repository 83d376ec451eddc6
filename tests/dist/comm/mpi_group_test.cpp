// SPDX-License-Identifier: Apache-2.0
#include "contract/group_contract.h"
#include "mpi_options.h"
#include "support/mpi_world.h"

namespace kamerton::comm {
namespace {

using testing_support::mpi_session;
using testing_support::mpi_world;

/// The session's own group, shared memory and MPI with buffers so small that every op needs many
/// turns.
struct Way {
  const char* name;
  bool session;
  MpiOptions options;
};

class MpiGroupContract : public testing::TestWithParam<Way> {
 protected:
  Group group() const {
    return GetParam().session ? mpi_world() : make_world_group(GetParam().options);
  }
};

MpiOptions options(bool shared, int64_t bytes) {
  const Topology& topology = mpi_session().topology();
  return {.shared_memory = shared,
          .staging_bytes = bytes,
          .oversubscribed = topology.local_size > topology.cores_per_node};
}

// Read when the tests run, not when they are registered: the session exists only then.
std::vector<Way> ways() {
  return {{"session", true, {}},
          {"shared_tiny",
           false,
           {.shared_memory = true, .staging_bytes = 4096, .oversubscribed = true}},
          {"mpi_tiny", false, {.shared_memory = false, .staging_bytes = 1024}},
          {"mpi", false, {.shared_memory = false}}};
}
INSTANTIATE_TEST_SUITE_P(Ways, MpiGroupContract, testing::ValuesIn(ways()), [](const auto& info) {
  return std::string(info.param.name);
});

TEST_P(MpiGroupContract, ReducesInRankOrder) {
  contract::reduces_in_rank_order(group());
}
TEST_P(MpiGroupContract, AllReducesSizesThatDoNotDivide) {
  contract::all_reduces_sizes_that_do_not_divide(group());
}
TEST_P(MpiGroupContract, Accumulates16BitsInFp32) {
  contract::accumulates_16_bits_in_fp32(group());
}
TEST_P(MpiGroupContract, WorksInPlace) {
  contract::works_in_place(group());
}
TEST_P(MpiGroupContract, MovesData) {
  contract::moves_data(group());
}
TEST_P(MpiGroupContract, MovesScalarsAndStrings) {
  contract::moves_scalars_and_strings(group());
}
TEST_P(MpiGroupContract, Splits) {
  contract::splits(group());
}
TEST_P(MpiGroupContract, RefusesWhatCannotTravel) {
  contract::refuses_what_cannot_travel(group());
}

TEST(MpiGroup, GivesEqualBitsThroughSharedMemoryAndThroughMpi) {
  const Group shared = make_world_group(options(true, 1 << 14));
  const Group messages = make_world_group(options(false, 1 << 12));
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble}) {
    for (const int64_t count : {int64_t{17}, int64_t{8191}, int64_t{50021}}) {
      at::Tensor a = contract::sample(shared.rank(), count, dtype, 77);
      at::Tensor b = a.clone();
      shared.all_reduce(a);
      messages.all_reduce(b);
      EXPECT_TRUE(at::equal(a, b)) << c10::toString(dtype) << " x " << count;
    }
  }
}

TEST(MpiGroup, SaysWhenRanksAreInDifferentCollectives) {
  const Group group = make_world_group(options(true, 1 << 14));
  if (group.size() == 1 || mpi_session().topology().num_nodes > 1) {
    GTEST_SKIP() << "needs two ranks on one node";
  }
  at::Tensor tensor = at::zeros({group.rank() == 0 ? 40000 : 50000});
  contract::expect_comm_error([&] { group.all_reduce(tensor); }, "different collectives");
}

TEST(Session, KnowsTheNode) {
  const Topology& topology = mpi_session().topology();
  EXPECT_EQ(topology.world_size, mpi_world().size());
  EXPECT_EQ(topology.rank, mpi_world().rank());
  EXPECT_LT(topology.local_rank, topology.local_size);
  EXPECT_LT(topology.node, topology.num_nodes);
  EXPECT_GE(topology.cores, 1);
  EXPECT_LE(topology.cores, topology.cores_per_node);
  EXPECT_GE(topology.ranks_sharing_cores, 1);
  EXPECT_LE(topology.ranks_sharing_cores, topology.local_size);
  EXPECT_FALSE(topology.host.empty());
  EXPECT_EQ(mpi_world().sum(int64_t{topology.local_rank == 0 ? 1 : 0}), topology.num_nodes);
}

}  // namespace
}  // namespace kamerton::comm
