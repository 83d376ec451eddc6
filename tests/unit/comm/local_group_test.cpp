// SPDX-License-Identifier: Apache-2.0
#include "kamerton/comm/local_group.h"

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>

#include "contract/group_contract.h"

namespace kamerton::comm {
namespace {

class LocalGroupContract : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Sizes, LocalGroupContract, testing::Values(1, 2, 3, 4, 5));

TEST_P(LocalGroupContract, ReducesInRankOrder) {
  run_local(GetParam(), contract::reduces_in_rank_order);
}
TEST_P(LocalGroupContract, AllReducesSizesThatDoNotDivide) {
  run_local(GetParam(), contract::all_reduces_sizes_that_do_not_divide);
}
TEST_P(LocalGroupContract, Accumulates16BitsInFp32) {
  run_local(GetParam(), contract::accumulates_16_bits_in_fp32);
}
TEST_P(LocalGroupContract, WorksInPlace) {
  run_local(GetParam(), contract::works_in_place);
}
TEST_P(LocalGroupContract, MovesData) {
  run_local(GetParam(), contract::moves_data);
}
TEST_P(LocalGroupContract, MovesScalarsAndStrings) {
  run_local(GetParam(), contract::moves_scalars_and_strings);
}
TEST_P(LocalGroupContract, Splits) {
  run_local(GetParam(), contract::splits);
}
TEST_P(LocalGroupContract, RefusesWhatCannotTravel) {
  run_local(GetParam(), contract::refuses_what_cannot_travel);
}

TEST(LocalGroup, GivesEachThreadItsRank) {
  std::atomic<int> seen = 0;
  run_local(3, [&](Group group) { seen += 1 << (4 * group.rank()); });
  EXPECT_EQ(seen.load(), 0x111);
}

TEST(LocalGroup, RethrowsTheFailureOfTheRankThatFailedByItself) {
  std::atomic<int> released = 0;
  const auto body = [&](Group group) {
    if (group.rank() == 2) {
      throw std::runtime_error("rank 2 broke");
    }
    try {
      group.barrier();
    } catch (const core::Error& error) {
      EXPECT_EQ(error.kind(), core::ErrorKind::Comm);
      EXPECT_THAT(error.what(), testing::HasSubstr("no rank 2"));
      ++released;
      throw;
    }
  };
  EXPECT_THROW(
      {
        try {
          run_local(4, body);
        } catch (const std::runtime_error& error) {
          EXPECT_STREQ(error.what(), "rank 2 broke");
          throw;
        }
      },
      std::runtime_error);
  EXPECT_EQ(released.load(), 3);
}

TEST(LocalGroup, BreaksSubgroupsWhoseMemberFails) {
  EXPECT_THROW(run_local(4,
                         [](Group group) {
                           const Group pair = group.split(group.rank() / 2, 0, "pair");
                           if (group.rank() == 1) {
                             throw std::invalid_argument("x");
                           }
                           pair.barrier();
                           group.barrier();
                         }),
               std::invalid_argument);
}

TEST(LocalGroup, SaysWhenARankReturnsWhileOthersWait) {
  try {
    run_local(2, [](Group group) {
      if (group.rank() == 0) {
        group.barrier();
      }
    });
    FAIL() << "no error";
  } catch (const core::Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("no rank 1"));
  }
}

TEST(LocalGroup, SaysWhenRanksAreInDifferentCollectives) {
  try {
    run_local(2, [](Group group) {
      at::Tensor tensor = at::zeros({group.rank() == 0 ? 4 : 5});
      group.all_reduce(tensor);
    });
    FAIL() << "no error";
  } catch (const core::Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("different collectives"));
  }
}

TEST(LocalGroup, RefusesNoRanks) {
  EXPECT_THROW(run_local(0, [](Group) {}), core::Error);
}

TEST(Group, IsAWorldOfOneByDefault) {
  const Group group;
  EXPECT_EQ(group.size(), 1);
  EXPECT_EQ(group.rank(), 0);
  contract::reduces_in_rank_order(group);
  contract::accumulates_16_bits_in_fp32(group);
  contract::works_in_place(group);
  contract::moves_data(group);
  contract::moves_scalars_and_strings(group);
  contract::splits(group);
  contract::refuses_what_cannot_travel(group);
}

}  // namespace
}  // namespace kamerton::comm
