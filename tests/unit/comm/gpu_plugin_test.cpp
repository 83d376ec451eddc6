// SPDX-License-Identifier: Apache-2.0
#include "kamerton/comm/gpu_plugin.h"

#include <gmock/gmock.h>

#include "kamerton/core/error.h"

namespace kamerton::comm {
namespace {

TEST(GpuPlugin, SaysWhatIsMissing) {
  const GpuSight sight = look_for_gpu();
  EXPECT_EQ(sight.usable(), sight.why.empty());
  EXPECT_EQ(sight.driver, sight.driver && sight.why.find("driver (libcuda") == std::string::npos);
  EXPECT_FALSE(describe_gpu().empty());
  if (!sight.driver) {
    EXPECT_THAT(describe_gpu(), testing::HasSubstr("none: "));
  }
}

TEST(GpuPlugin, DoesNotLoadWithoutADevice) {
  GpuSight sight;
  sight.plugin = "libkamerton_gpu.so";
  sight.why = "no NVIDIA driver";
  try {
    const Gpu gpu(sight);
    FAIL() << "no error";
  } catch (const core::Error& error) {
    EXPECT_EQ(error.kind(), core::ErrorKind::Config);
    EXPECT_THAT(error.what(), testing::HasSubstr("no NVIDIA driver"));
  }
}

TEST(GpuPlugin, RefusesALibraryThatIsNone) {
  GpuSight sight;
  sight.devices = {"a device"};
  sight.plugin = "/dev/null";
  EXPECT_THROW(Gpu{sight}, core::Error);
}

}  // namespace
}  // namespace kamerton::comm
