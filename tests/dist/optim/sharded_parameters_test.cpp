// SPDX-License-Identifier: Apache-2.0
// The claims of tests/unit/optim over real ranks: any number that divides the batch.
#include "kamerton/optim/sharded_parameters.h"

#include <cmath>
#include <limits>

#include <gmock/gmock.h>

#include "support/mpi_world.h"
#include "unit/optim/tiny_net.h"

namespace kamerton::optim {
namespace {

using namespace testing;
using testing_support::mpi_world;

RunOptions with_stage(int64_t stage, bool tied, int micro_batches = 1) {
  RunOptions options;
  options.net.tied = tied;
  options.optim = adamw(stage);
  options.micro_batches = micro_batches;
  options.steps = 20;
  return options;
}

TEST(ShardedParametersOverMpi, EveryStageFollowsPlainAutogradFor20Steps) {
  for (const bool tied : {true, false}) {
    const RunResult reference = train_plainly(with_stage(0, tied));
    for (const int micro_batches : {1, 3}) {
      for (const int64_t stage : {0, 1, 2, 3}) {
        const RunResult run = train(mpi_world(), with_stage(stage, tied, micro_batches));
        for (size_t step = 0; step < run.losses.size(); ++step) {
          EXPECT_NEAR(run.losses[step], reference.losses[step], 1e-5 * reference.losses[step])
              << "stage " << stage << " step " << step;
        }
        EXPECT_LT(largest_difference(run, reference), 1e-4) << "stage " << stage;
      }
    }
  }
}

TEST(ShardedParametersOverMpi, StagesHaveTheSameBits) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    for (const bool tied : {true, false}) {
      RunOptions options = with_stage(0, tied);
      options.dtype = dtype;
      const RunResult first = train(mpi_world(), options);
      for (const int64_t stage : {1, 2, 3}) {
        options.optim.zero_stage = stage;
        EXPECT_TRUE(same_bits(train(mpi_world(), options), first))
            << "stage " << stage << " tied " << tied;
      }
    }
  }
}

TEST(ShardedParametersOverMpi, ReplicasOfShardsHaveTheSameBitsAtAllStages) {
  if (mpi_world().size() % 2 != 0) {
    GTEST_SKIP() << "needs an even number of ranks";
  }
  RunOptions options = with_stage(0, true);
  options.replicas = 2;
  const RunResult first = train(mpi_world(), options);
  for (const int64_t stage : {1, 2, 3}) {
    options.optim.zero_stage = stage;
    EXPECT_TRUE(same_bits(train(mpi_world(), options), first)) << "stage " << stage;
  }
}

TEST(ShardedParametersOverMpi, AllRanksSkipWhenTheLastSeesNoNumber) {
  for (const int64_t stage : {0, 3}) {
    const RunOptions options = with_stage(stage, true);
    TinyNet net(options.net);
    ShardedParameters sharded(net.units, groups_of(mpi_world(), 1), options.optim, at::kFloat);
    sharded.load(fill_initial);
    accumulate(net, sharded, mpi_world(), options, 0);
    const bool last = mpi_world().rank() + 1 == mpi_world().size();

    EXPECT_FALSE(sharded.finish_gradients(1.0, !last).finite);
    accumulate(net, sharded, mpi_world(), options, 0);
    EXPECT_TRUE(sharded.finish_gradients(1.0, true).finite);
  }
}

}  // namespace
}  // namespace kamerton::optim
