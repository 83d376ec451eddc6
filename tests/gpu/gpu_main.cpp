// SPDX-License-Identifier: Apache-2.0
// Loads the plug-in before anything asks ATen about CUDA: ATen caches the answer.
#include <cstdio>
#include <memory>

#include <gmock/gmock.h>

#include "gpu_device.h"

namespace kamerton::test {
namespace {

std::unique_ptr<const comm::Gpu> plugin;
std::string reason;

}  // namespace

const comm::Gpu* gpu() {
  return plugin.get();
}
const std::string& why_no_gpu() {
  return reason;
}

namespace {

void find_device() {
  const comm::GpuSight sight = comm::look_for_gpu();
  reason = sight.why;
  if (sight.usable()) {
    plugin = std::make_unique<const comm::Gpu>(sight);
    plugin->use_device(0);
    std::printf("device: %s\n", sight.devices.front().c_str());
  } else {
    std::printf("no GPU is used: %s\n", reason.c_str());
  }
}

}  // namespace
}  // namespace kamerton::test

int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);
  kamerton::test::find_device();
  return RUN_ALL_TESTS();
}
