// SPDX-License-Identifier: Apache-2.0
#include "kamerton/optim/memory_plan.h"

#include <gmock/gmock.h>

#include "kamerton/comm/local_group.h"

#include "unit/optim/tiny_net.h"

namespace kamerton::optim {
namespace {

using namespace testing;

const NetOptions kShape{.vocabulary = 300, .width = 64, .inner = 256, .blocks = 4};

MemoryPlan plan_for(int64_t stage, int ranks, int64_t compute_bytes, const NetOptions& shape) {
  PlanRequest request;
  request.units = TinyNet(shape).units;
  request.optim = adamw(stage);
  request.shard = ranks;
  request.compute_bytes = compute_bytes;
  return plan_memory(request);
}

TEST(MemoryPlan, KnowsWhatTheEngineHoldsToTheByte) {
  for (const bool tied : {true, false}) {
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      for (const int64_t stage : {0, 1, 2, 3}) {
        NetOptions shape = kShape;
        shape.tied = tied;
        ShardedBytes bytes;
        comm::run_local(4, [&](comm::Group world) {
          TinyNet net(shape);
          RunOptions options{.net = shape, .optim = adamw(stage)};
          ShardedParameters sharded(net.units, groups_of(world, 1), options.optim, dtype);
          sharded.load(fill_initial);
          accumulate(net, sharded, world, options, 0);
          sharded.finish_gradients(1.0);
          sharded.update(1, 1e-3);
          if (world.rank() == 0) {
            bytes = sharded.bytes();
          }
        });

        const MemoryPlan plan = plan_for(stage, 4, dtype == at::kFloat ? 4 : 2, shape);

        EXPECT_EQ(plan.parameters, bytes.parameters) << "stage " << stage;
        EXPECT_EQ(plan.gradients, bytes.gradients) << "stage " << stage;
        EXPECT_EQ(plan.optimizer_state, bytes.optimizer_state) << "stage " << stage;
        EXPECT_GE(plan.transient, bytes.transient_peak) << "stage " << stage << " tied " << tied;
        EXPECT_LE(plan.transient, bytes.transient_peak * 5 / 4)
            << "stage " << stage << " tied " << tied;
      }
    }
  }
}

TEST(MemoryPlan, FollowsThePapersTableForItsModel) {
  // ZeRO paper, figure 1: 7.5e9 parameters, 64 ranks, bf16 with fp32 state; gradients are fp32 here
  // (4 bytes, there 2).
  PlanRequest request;
  request.compute_bytes = 2;
  request.shard = 64;
  for (int unit = 0; unit < 75; ++unit) {
    request.units.push_back(
        {unit, "layers." + std::to_string(unit), {std::make_shared<tensor::Parameter>()}});
    request.units.back().parameters[0]->shape = {10000, 10000};
  }
  const auto gigabytes = [&](int64_t stage) {
    request.optim.zero_stage = stage;
    const MemoryPlan plan = plan_memory(request);
    return static_cast<double>(plan.parameters + plan.gradients + plan.optimizer_state) / 1e9;
  };

  EXPECT_NEAR(gigabytes(0), (2 + 4 + 12) * 7.5, 0.1);
  EXPECT_NEAR(gigabytes(1), (2 + 4 + 12.0 / 64) * 7.5, 0.1);
  EXPECT_NEAR(gigabytes(2), (2 + 16.0 / 64) * 7.5, 0.1);
  EXPECT_NEAR(gigabytes(3), 18.0 / 64 * 7.5, 0.1);
}

TEST(MemoryPlan, CheckpointingAndFrozenWeightsCostLess) {
  PlanRequest request;
  request.units = TinyNet(kShape).units;
  request.activations = {.layers = 4,
                         .hidden = 64,
                         .intermediate = 256,
                         .heads = 4,
                         .kv_heads = 2,
                         .head_dim = 16,
                         .vocabulary = 300,
                         .tokens = 512};
  const MemoryPlan whole = plan_memory(request);
  request.activations.checkpointing = true;
  const MemoryPlan recomputed = plan_memory(request);
  request.activations.checkpointing = false;
  NetOptions frozen = kShape;
  frozen.adapters = true;
  request.units = TinyNet(frozen).units;
  const MemoryPlan adapters = plan_memory(request);
  request.training = false;
  const MemoryPlan evaluation = plan_memory(request);

  EXPECT_LT(recomputed.activations, whole.activations);
  EXPECT_LT(adapters.gradients * 5, whole.gradients);
  EXPECT_LT(adapters.optimizer_state * 5, whole.optimizer_state);
  EXPECT_EQ(evaluation.gradients, 0);
  EXPECT_LT(evaluation.total(), adapters.total());
  EXPECT_THAT(to_text(whole), ::testing::HasSubstr("total a rank"));
}

}  // namespace
}  // namespace kamerton::optim
