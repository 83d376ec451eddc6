// SPDX-License-Identifier: Apache-2.0
#include "kamerton/tensor/allocator.h"

#include <thread>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "size_class.h"

namespace kamerton::tensor {
namespace {

TEST(SizeClass, WastesAtMostAnEighthAndIsTheSmallestThatFits) {
  static_assert(size_class_of(1) == 0);
  for (size_t bytes = 513; bytes < (size_t{1} << 40); bytes += bytes / 7 + 1) {
    const int c = size_class_of(bytes);
    ASSERT_GE(bytes_of_class(c), bytes);
    ASSERT_LT(bytes_of_class(c - 1), bytes);
    ASSERT_LE(bytes_of_class(c), bytes + bytes / 8 + 1);
    ASSERT_EQ(size_class_of(bytes_of_class(c)), c);
  }
}

TEST(Allocator, KeepsBlocksForReuseAndGivesThemBackOnTrim) {
  install_allocator();
  install_allocator();
  ASSERT_TRUE(allocator_installed());
  const AllocatorStats before = allocator_stats();
  void* first = nullptr;
  {
    const at::Tensor t = at::empty({3 << 20}, at::kFloat);
    first = t.data_ptr();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(first) % 64, 0u);
    EXPECT_EQ(allocator_stats().live_bytes - before.live_bytes, 12 << 20);
  }
  EXPECT_EQ(allocator_stats().live_bytes, before.live_bytes);
  EXPECT_GE(allocator_stats().reserved_bytes, before.reserved_bytes + (12 << 20));
  const at::Tensor again = at::empty({3 << 20}, at::kFloat);
  EXPECT_EQ(again.data_ptr(), first);
  const AllocatorStats used = allocator_stats();
  trim_allocator();
  EXPECT_EQ(allocator_stats().live_bytes, used.live_bytes);
  EXPECT_EQ(allocator_stats().reserved_bytes, used.live_bytes);
}

TEST(Allocator, DoesNotHoardBlocksOfManySizes) {
  install_allocator();
  trim_allocator();
  reset_peak();
  const int64_t base = allocator_stats().live_bytes;
  for (int64_t n = 1; n < 400; ++n) {
    at::empty({n << 18}, at::kFloat);
  }
  const AllocatorStats stats = allocator_stats();
  EXPECT_EQ(stats.live_bytes, base);
  EXPECT_LT(stats.reserved_bytes, stats.peak_live_bytes * 5 / 4 + (65 << 20));
}

TEST(Allocator, ServesManyThreads) {
  install_allocator();
  const int64_t live = allocator_stats().live_bytes;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([t] {
      for (int64_t i = 1; i < 2000; ++i) {
        const at::Tensor x = at::full({i * (t + 1)}, t, at::kFloat);
        ASSERT_EQ(x[i - 1].item<float>(), static_cast<float>(t));
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(allocator_stats().live_bytes, live);
}

}  // namespace
}  // namespace kamerton::tensor
