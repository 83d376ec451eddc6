// SPDX-License-Identifier: Apache-2.0
// The device's way, run on the CPU beside the kernels: forward and every gradient.
#include "device_ops.h"

#include "reference.h"
#include "support/op_cases.h"

namespace kamerton::tensor {
namespace {

test::Ops device_ops() {
  test::Ops ops;
  ops.rms_norm = device::rms_norm;
  ops.add_rms_norm = device::add_rms_norm;
  ops.layer_norm = device::layer_norm;
  ops.add_layer_norm = device::add_layer_norm;
  ops.gated = device::gated;
  ops.activate = device::activate;
  ops.attend = device::attend;
  ops.attend_cached = device::attend_cached;
  return ops;
}

void compare(at::ScalarType dtype, double tolerance) {
  const auto options = at::TensorOptions().dtype(dtype);
  for (const test::OpCase& op : test::op_cases()) {
    test::Inputs for_kernels(options);
    const test::Tensors expected = op.run({}, for_kernels);
    test::Inputs for_device(options);
    test::expect_close(op.name, op.run(device_ops(), for_device), expected, tolerance);
  }
}

TEST(DeviceOps, EqualTheKernelsInSinglePrecision) {
  compare(at::kFloat, 2e-6);
}
TEST(DeviceOps, StayWithinRoundingOfTheKernelsInBfloat) {
  compare(at::kBFloat16, 0.03);  // four roundings of 2^-8 in the longest chain
}

TEST(DeviceOps, TheLossOfOtherTypesGoesTheDevicesWayAndAgrees) {
  // The CPU kernels take fp32 and bf16: double precision exercises HeadPass as a device would.
  for (const test::OpCase& op : test::op_cases()) {
    if (op.name.rfind("token_", 0) == 0) {
      test::Inputs single(at::TensorOptions().dtype(at::kFloat));
      test::Inputs twice(at::TensorOptions().dtype(at::kDouble));
      test::expect_close(op.name, op.run({}, twice), op.run({}, single), 1e-5);
    }
  }
}

TEST(DeviceOps, LossChunkFillsLossesHitsAndGradient) {
  const at::Tensor logits = test::random_tensor({6, 50}, 5, 2.0);
  TokenLossOptions options;
  options.logit_scale = 0.7;
  options.soft_cap = 4.0;
  device::LossRows rows{.targets = at::arange(6).mul(8),
                        .coefficients = at::linspace(0.5, 1.5, 6),
                        .nll = at::empty({6}),
                        .correct = at::empty({6}, at::kByte)};
  at::Tensor changed = logits.clone();
  device::loss_chunk(changed, rows, options);

  const at::Tensor leaf = test::double_leaf(logits);
  const at::Tensor z = 4.0 * at::tanh(leaf * 0.7 / 4.0);
  const at::Tensor nll = -at::log_softmax(z, 1).gather(1, rows.targets.unsqueeze(1)).squeeze(1);
  (nll * rows.coefficients.to(at::kDouble)).sum().backward();
  EXPECT_LE(test::largest_difference(rows.nll, nll), 2e-6);
  EXPECT_LE(test::largest_difference(changed, leaf.grad()), 1e-6);
  EXPECT_TRUE(at::equal(rows.correct, z.argmax(1).eq(rows.targets).to(at::kByte)));
}

TEST(DeviceOps, RowsOfEqualTokensAddUp) {
  at::Tensor target = at::ones({4, 3});
  device::add_rows(target, at::tensor({2, 0, 2}, at::kLong), at::ones({3, 3}, at::kBFloat16));
  EXPECT_TRUE(at::equal(target.sum(1), at::tensor({6.0F, 3.0F, 9.0F, 3.0F})));
}

}  // namespace
}  // namespace kamerton::tensor
