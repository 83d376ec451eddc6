// SPDX-License-Identifier: Apache-2.0
// A correction of gradients reaches every element once, at any ZeRO stage.
#include <cmath>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "kamerton/comm/group.h"
#include "kamerton/optim/sharded_parameters.h"

#include "support/mpi_world.h"

namespace kamerton::optim {
namespace {

constexpr double kMu = 0.5;
constexpr double kLr = 0.1;
constexpr int64_t kSize = 1000;

tensor::ParamUnit make_unit() {
  auto parameter = std::make_shared<tensor::Parameter>();
  parameter->name = "w";
  parameter->shape = {kSize};
  return {.index = 0, .name = "only", .parameters = {parameter}};
}

/// Two steps of SGD on sum(w * slope), the second one with mu (w - w0) added to the gradient.
at::Tensor train(int64_t stage, const comm::Group& group) {
  const tensor::ParamUnit unit = make_unit();
  OptimConfig config;
  config.algorithm = "sgd";
  config.momentum = 0;
  config.weight_decay = 0;
  config.zero_stage = stage;
  ShardedParameters parameters({unit}, {group, comm::Group()}, config, at::kFloat);
  parameters.load([](const tensor::Parameter&, int64_t offset, at::Tensor out) {
    out.copy_(at::arange(offset, offset + out.numel(), at::kFloat).div(kSize));
  });
  const at::Tensor slope = at::arange(kSize, at::kFloat).sin();
  parameters.set_correction(
      [](const tensor::Parameter&, int64_t offset, const at::Tensor& values, at::Tensor gradient) {
        const at::Tensor start = at::arange(offset, offset + values.numel(), at::kFloat).div(kSize);
        gradient.add_(values, kMu).sub_(start, kMu);
      });
  for (int64_t step = 1; step <= 2; ++step) {
    parameters.begin_micro_batch(true);
    const at::Tensor input = at::ones({1}, at::kFloat).set_requires_grad(true);
    const at::Tensor loss =
        tensor::run_unit(&parameters, unit, input, false, [&](const at::Tensor& x) {
          return (unit.parameters[0]->value * slope).sum() * x.sum() / group.size();
        });
    loss.backward();
    parameters.finish_gradients(0);
    parameters.update(step, kLr);
  }
  return parameters.fetch(*unit.parameters[0]);
}

TEST(Correction, ReachesEveryElementOnceAtAnyStage) {
  const comm::Group& world = testing_support::mpi_world();
  const at::Tensor start = at::arange(kSize, at::kDouble).div(kSize);
  const at::Tensor slope = at::arange(kSize, at::kDouble).sin();
  const at::Tensor first = start - kLr * slope;
  const at::Tensor want = first - kLr * (slope + kMu * (first - start));
  for (const int64_t stage : {0, 1, 2, 3}) {
    const double gap = (train(stage, world).to(at::kDouble) - want).abs().max().item<double>();
    EXPECT_LT(gap, 1e-6) << "stage " << stage;
  }
}

}  // namespace
}  // namespace kamerton::optim
