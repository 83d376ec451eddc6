// SPDX-License-Identifier: Apache-2.0
#include "kamerton/telemetry/memory.h"

#include <cstring>
#include <memory>

#include <gtest/gtest.h>

namespace kamerton::telemetry {
namespace {

TEST(Memory, SeesAllocationsThatAreTouched) {
  constexpr size_t kBytes = size_t{64} << 20;
  constexpr int64_t kTolerance = int64_t{4} << 20;
  const int64_t before = current_rss_bytes();
  int64_t during = 0;
  {
    const auto block = std::make_unique<char[]>(kBytes);
    std::memset(block.get(), 1, kBytes);
    during = current_rss_bytes();
    EXPECT_EQ(block[kBytes / 2], 1);
  }

  EXPECT_NEAR(during - before, kBytes, kTolerance);
  EXPECT_GE(peak_rss_bytes(), during - kTolerance);
  EXPECT_LT(current_rss_bytes(), during - static_cast<int64_t>(kBytes) / 2);
}

TEST(Memory, KnowsWhatTheMachineHasLeft) {
  EXPECT_GT(available_memory_bytes(), 0);
}

}  // namespace
}  // namespace kamerton::telemetry
