// SPDX-License-Identifier: Apache-2.0
#include "kamerton/telemetry/memory.h"

#include <cstring>

#include <gtest/gtest.h>
#include <sys/mman.h>

namespace kamerton::telemetry {
namespace {

TEST(Memory, SeesAllocationsThatAreTouched) {
  constexpr size_t kBytes = size_t{64} << 20;
  constexpr int64_t kTolerance = int64_t{4} << 20;
  const int64_t before = current_rss_bytes();
  // Pages from the kernel itself: an allocator, or a sanitizer's quarantine, may keep what is
  // freed.
  void* block = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(block, MAP_FAILED);
  std::memset(block, 1, kBytes);
  const int64_t during = current_rss_bytes();
  munmap(block, kBytes);

  EXPECT_NEAR(during - before, kBytes, kTolerance);
  EXPECT_GE(peak_rss_bytes(), during - kTolerance);
  EXPECT_LT(current_rss_bytes(), during - static_cast<int64_t>(kBytes) / 2);
}

TEST(Memory, KnowsWhatTheMachineHasLeft) {
  EXPECT_GT(available_memory_bytes(), 0);
}

}  // namespace
}  // namespace kamerton::telemetry
