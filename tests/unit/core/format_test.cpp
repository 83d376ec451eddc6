// SPDX-License-Identifier: Apache-2.0
#include "kamerton/core/format.h"

#include <limits>

#include <gtest/gtest.h>

namespace kamerton::core {
namespace {

TEST(FormatBytes, UsesPowersOf1024) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(1023), "1023 B");
  EXPECT_EQ(format_bytes(1536), "1.5 KiB");
  EXPECT_EQ(format_bytes((uint64_t{1} << 20) - 1), "1.0 MiB");
  EXPECT_EQ(format_bytes(~uint64_t{0}), "16.0 EiB");
}

TEST(FormatDuration, PicksTwoUnits) {
  EXPECT_EQ(format_duration(0.416), "0.42 s");
  EXPECT_EQ(format_duration(12.4), "12 s");
  EXPECT_EQ(format_duration(59.6), "1m00s");
  EXPECT_EQ(format_duration(185), "3m05s");
  EXPECT_EQ(format_duration(2 * 3600 + 7 * 60), "2h07m");
  EXPECT_EQ(format_duration(4 * 86400 + 3 * 3600), "4d03h");
  EXPECT_EQ(format_duration(-1), "?");
  EXPECT_EQ(format_duration(std::numeric_limits<double>::quiet_NaN()), "?");
  EXPECT_EQ(format_duration(std::numeric_limits<double>::infinity()), "?");
}

TEST(FormatCount, UsesPowersOf1000) {
  EXPECT_EQ(format_count(0), "0");
  EXPECT_EQ(format_count(950), "950");
  EXPECT_EQ(format_count(12345), "12.3k");
  EXPECT_EQ(format_count(999'960), "1.0M");
  EXPECT_EQ(format_count(134'515'008), "134.5M");
  EXPECT_EQ(format_count(1.5), "1.5");
  EXPECT_EQ(format_count(std::numeric_limits<double>::infinity()), "?");
}

}  // namespace
}  // namespace kamerton::core
