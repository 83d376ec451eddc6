// SPDX-License-Identifier: Apache-2.0
// The device's update, run on the CPU beside the kernels.
#include "device_update.h"

#include <cmath>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "update_kernels.h"

namespace kamerton::optim {
namespace {

constexpr int64_t kLength = 1000;
constexpr int64_t kBegin = 128;  // of the part within its flat buffer

at::Tensor wave(double phase) {
  return at::arange(kLength, at::kFloat).mul(0.37).add(phase).sin();
}

/// A part and a copy, over segments that begin before it and end behind it.
struct Scene {
  std::vector<DecaySegment> segments = {{0, 300, true}, {300, 450, false}, {450, 4000, true}};
  DevicePart part(size_t moments) const {
    DevicePart made{.begin = kBegin,
                    .param = wave(0.1),
                    .low = at::zeros({kLength}, at::kBFloat16),
                    .grad = wave(1.7),
                    .moments = {},
                    .segments = &segments};
    for (size_t i = 0; i < moments; ++i) {
      made.moments.push_back(wave(2.0 + i).abs().mul(0.1));
    }
    return made;
  }
};

double difference(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

TEST(DeviceUpdate, AdamwEqualsTheKernelUpToRounding) {
  const Scene scene;
  OptimConfig config;
  config.algorithm = "adamw";
  config.weight_decay = 0.1;
  const DeviceStep step{.number = 7, .lr = 1e-2, .clip = 0.6};
  const DevicePart got = scene.part(2);
  update_parts({got}, config, step);

  const DevicePart expected = scene.part(2);
  AdamwFactors factors;
  factors.clip = 0.6F;
  factors.one_minus_beta1 = static_cast<float>(1.0 - config.beta1);
  factors.beta2 = static_cast<float>(config.beta2);
  factors.one_minus_beta2 = static_cast<float>(1.0 - config.beta2);
  factors.step_size = static_cast<float>(step.lr / (1.0 - std::pow(config.beta1, 7)));
  factors.inv_sqrt_bias2 = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(config.beta2, 7)));
  factors.eps = static_cast<float>(config.eps);
  for (const DecaySegment& segment : scene.segments) {
    const int64_t from = std::max<int64_t>(0, segment.begin - kBegin);
    const int64_t to = std::min(kLength, segment.end - kBegin);
    factors.keep = segment.decay ? static_cast<float>(1.0 - step.lr * 0.1) : 1.0F;
    adamw(expected.param.data_ptr<float>() + from,
          nullptr,
          expected.grad.data_ptr<float>() + from,
          expected.moments[0].data_ptr<float>() + from,
          expected.moments[1].data_ptr<float>() + from,
          to - from,
          factors);
  }
  EXPECT_LE(difference(got.param, expected.param), 1e-6);
  EXPECT_LE(difference(got.moments[0], expected.moments[0]), 1e-6);
  EXPECT_LE(difference(got.moments[1], expected.moments[1]), 1e-6);
  EXPECT_TRUE(at::equal(got.low, got.param.to(at::kBFloat16)));
  EXPECT_GT(difference(got.param, scene.part(2).param), 1e-3);  // and something has moved
}

TEST(DeviceUpdate, SgdEqualsTheKernelUpToRounding) {
  const Scene scene;
  for (const double momentum : {0.0, 0.9}) {
    OptimConfig config;
    config.algorithm = "sgd";
    config.weight_decay = 0.1;
    config.momentum = momentum;
    const size_t moments = momentum > 0 ? 1 : 0;
    const DevicePart got = scene.part(moments);
    update_parts({got}, config, {.number = 2, .lr = 1e-2, .clip = 0.6});
    const DevicePart expected = scene.part(moments);
    for (const DecaySegment& segment : scene.segments) {
      const int64_t from = std::max<int64_t>(0, segment.begin - kBegin);
      const int64_t to = std::min(kLength, segment.end - kBegin);
      sgd(expected.param.data_ptr<float>() + from,
          nullptr,
          expected.grad.data_ptr<float>() + from,
          moments > 0 ? expected.moments[0].data_ptr<float>() + from : nullptr,
          to - from,
          {.clip = 0.6F,
           .weight_decay = segment.decay ? 0.1F : 0.0F,
           .momentum = static_cast<float>(momentum),
           .lr = 1e-2F});
    }
    EXPECT_LE(difference(got.param, expected.param), 1e-6) << momentum;
  }
}

TEST(DeviceUpdate, SumOfSquaresIsThatOfDoublePrecision) {
  const at::Tensor a = wave(0.3);
  const at::Tensor b = wave(0.9).mul(1e-3);
  EXPECT_NEAR(device_sum_of_squares({a, b}),
              sum_of_squares(a.const_data_ptr<float>(), kLength) +
                  sum_of_squares(b.const_data_ptr<float>(), kLength),
              1e-9);
  EXPECT_EQ(device_sum_of_squares({}), 0.0);
  EXPECT_TRUE(std::isnan(device_sum_of_squares({a, at::full({2}, std::nan(""))})));
}

}  // namespace
}  // namespace kamerton::optim
