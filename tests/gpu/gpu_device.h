// SPDX-License-Identifier: Apache-2.0
// The device of this test program.
#pragma once

#include <string>

#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include "kamerton/comm/gpu_plugin.h"

namespace kamerton::test {

/// The loaded plug-in, or null.
const comm::Gpu* gpu();
/// Why gpu() is null.
const std::string& why_no_gpu();

class GpuTest : public testing::Test {
 protected:
  void SetUp() override {
    if (gpu() == nullptr) {
      GTEST_SKIP() << "no GPU is used: " << why_no_gpu();
    }
  }
  at::Device device_ = at::Device(at::kCUDA, 0);
};

}  // namespace kamerton::test
