// SPDX-License-Identifier: Apache-2.0
// The device's update, run on the CPU beside the kernels.
#include "device_update.h"

#include <cmath>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "elementwise_rules.h"
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
  std::vector<Segment> segments = {
      {0, 300, {1.0, 0.1, 0}}, {300, 450, {0.5, 0.0, 0}}, {450, 4000, {1.0, 0.1, 4}}};
  UpdatePart part(size_t moments) const {
    UpdatePart made{.layout = nullptr,
                    .begin = kBegin,
                    .param = wave(0.1),
                    .low = at::zeros({kLength}, at::kBFloat16),
                    .grad = wave(1.7),
                    .state = {},
                    .segments = &segments};
    for (size_t i = 0; i < moments; ++i) {
      made.state.push_back(wave(2.0 + i).abs().mul(0.1));
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
  const UpdateStep step{.number = 7, .lr = 1e-2, .clip = 0.6};
  const UpdatePart got = scene.part(2);
  DeviceUpdate(config).update({got}, step);

  const UpdatePart expected = scene.part(2);
  for (const Segment& segment : scene.segments) {
    const int64_t from = std::max<int64_t>(0, segment.begin - kBegin);
    const int64_t to = std::min(kLength, segment.end - kBegin);
    adamw(expected.param.data_ptr<float>() + from,
          nullptr,
          expected.grad.data_ptr<float>() + from,
          expected.state[0].data_ptr<float>() + from,
          expected.state[1].data_ptr<float>() + from,
          to - from,
          adamw_factors(config, step, segment.treatment));
  }
  EXPECT_LE(difference(got.param, expected.param), 1e-6);
  EXPECT_LE(difference(got.state[0], expected.state[0]), 1e-6);
  EXPECT_LE(difference(got.state[1], expected.state[1]), 1e-6);
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
    const UpdatePart got = scene.part(moments);
    DeviceUpdate(config).update({got}, {.number = 2, .lr = 1e-2, .clip = 0.6});
    const UpdatePart expected = scene.part(moments);
    for (const Segment& segment : scene.segments) {
      const int64_t from = std::max<int64_t>(0, segment.begin - kBegin);
      const int64_t to = std::min(kLength, segment.end - kBegin);
      sgd(expected.param.data_ptr<float>() + from,
          nullptr,
          expected.grad.data_ptr<float>() + from,
          moments > 0 ? expected.state[0].data_ptr<float>() + from : nullptr,
          to - from,
          {.clip = 0.6F,
           .weight_decay = static_cast<float>(segment.treatment.weight_decay),
           .momentum = static_cast<float>(momentum),
           .lr = static_cast<float>(1e-2 * segment.treatment.lr_ratio)});
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
