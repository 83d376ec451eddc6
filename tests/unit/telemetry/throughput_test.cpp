// SPDX-License-Identifier: Apache-2.0
#include "kamerton/telemetry/throughput.h"

#include <gtest/gtest.h>

#include "support/manual_clock.h"

namespace kamerton::telemetry {
namespace {

TEST(Throughput, AveragesOverItsWindow) {
  support::ManualClock clock;
  Throughput speed(clock, 2);
  EXPECT_EQ(speed.tokens_per_s(), 0.0);
  for (const double seconds : {10.0, 1.0, 3.0}) {
    clock.advance(seconds);
    speed.add(100);
  }

  EXPECT_DOUBLE_EQ(speed.tokens_per_s(), 200 / 4.0);
  EXPECT_DOUBLE_EQ(speed.last_step_s(), 3.0);
}

TEST(Throughput, LeavesOutPauses) {
  support::ManualClock clock;
  Throughput speed(clock);
  clock.advance(1);
  speed.add(10);
  clock.advance(1000);
  speed.skip_pause();
  clock.advance(1);
  speed.add(10);

  EXPECT_DOUBLE_EQ(speed.tokens_per_s(), 10.0);
}

// Llama-3-8B at 8192 tokens: 5.791e10 and 5.147e10 FLOP per token are the figures that are quoted
// for it.
TEST(ModelFlops, GivesTheQuotedFiguresOfLlama3) {
  ModelFlops model;
  model.parameters = 8'030'261'248;
  model.embedding_parameters = int64_t{128'256} * 4096;
  model.layers = 32;
  model.attention_width = 4096;
  model.sequence_length = 8192;

  EXPECT_NEAR(flops_per_token_full(model), 5.791e10, 0.001e10);
  EXPECT_NEAR(flops_per_token_causal(model), 5.147e10, 0.001e10);
}

TEST(Mfu, IsEmptyWithoutAPeak) {
  EXPECT_EQ(mfu(1e9, 10, 0), std::nullopt);
  EXPECT_DOUBLE_EQ(mfu(1e9, 10, 4e10).value(), 0.25);
}

}  // namespace
}  // namespace kamerton::telemetry
