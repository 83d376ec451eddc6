// SPDX-License-Identifier: Apache-2.0
// Every operation on the device beside the CPU kernels: forward and all gradients.
#include <ATen/ATen.h>

#include "gpu_device.h"
#include "support/op_cases.h"

namespace kamerton::test {
namespace {

class GpuOps : public GpuTest {
 protected:
  Tensors on(at::Device device, at::ScalarType dtype, const OpCase& op) const {
    Inputs inputs(at::TensorOptions(device).dtype(dtype));
    return op.run({}, inputs);
  }
  void compare(at::ScalarType dtype, double tolerance) const {
    for (const OpCase& op : op_cases()) {
      expect_close(op.name, on(device_, dtype, op), on(at::kCPU, dtype, op), tolerance);
    }
  }
};

TEST_F(GpuOps, EqualTheCpuInSinglePrecision) {
  compare(at::kFloat, 1e-5);
}
TEST_F(GpuOps, StayWithinRoundingOfTheCpuInBfloat) {
  compare(at::kBFloat16, 0.03);
}
TEST_F(GpuOps, GiveTheSameBitsTwice) {
  for (const OpCase& op : op_cases()) {
    const Tensors first = on(device_, at::kBFloat16, op);
    const Tensors second = on(device_, at::kBFloat16, op);
    for (size_t i = 0; i < first.size(); ++i) {
      EXPECT_TRUE(at::equal(first[i], second[i])) << op.name << ", result " << i;
    }
  }
}

TEST_F(GpuOps, LargeRowsTakeTheFastPathsAndAgree) {
  const OpCase attention = attend_case("large", {8, 2, 64, 0.125, 0}, {0, 256, 512, 700});
  expect_close("attend, large",
               on(device_, at::kBFloat16, attention),
               on(at::kCPU, at::kBFloat16, attention),
               0.03);
}

}  // namespace
}  // namespace kamerton::test
