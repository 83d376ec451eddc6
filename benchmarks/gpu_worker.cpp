// SPDX-License-Identifier: Apache-2.0
#include "gpu_worker.h"

#include <chrono>
#include <iostream>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include "kamerton/model/weights.h"
#include "kamerton/optim/sharded_parameters.h"
#include "kamerton/tensor/allocator.h"

namespace kamerton::bench {
namespace {

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Waits for everything that the device was told to do.
void wait_for(at::Device device) {
  (void)at::zeros({1}, at::TensorOptions(device)).item<float>();
}

/// The peer's tokens: a fixed sequence.
std::vector<std::vector<int64_t>> documents_of(int64_t batch) {
  std::vector<std::vector<int64_t>> documents(static_cast<size_t>(batch));
  for (int64_t i = 0; i < batch * kGpuLength; ++i) {
    documents[static_cast<size_t>(i / kGpuLength)].push_back((i * 7919 + 13) % 151643);
  }
  return documents;
}

at::Tensor targets_of(const std::vector<std::vector<int64_t>>& documents) {
  std::vector<int64_t> targets;
  for (const auto& document : documents) {
    targets.insert(targets.end(), document.begin() + 1, document.end());
    targets.push_back(tensor::kIgnoredTarget);
  }
  return at::tensor(targets, at::kLong);
}

/// Drawn on the device: only the speed matters, and gigabytes of numbers from the host take long.
void fill_at_random(const tensor::Parameter& parameter, int64_t, at::Tensor out) {
  parameter.shape.size() < 2 ? out.fill_(1.0) : out.normal_(0.0, 0.02);
}

}  // namespace

int run_gpu_worker(const comm::GpuSight& sight, const GpuShape& shape, int64_t batch, int steps) {
  tensor::install_allocator();
  const comm::Gpu gpu(sight);
  gpu.use_device(0);
  model::ModelOptions options;
  options.random_init = true;
  options.device = "cuda";
  options.dtype = "bf16";
  model::Decoder decoder(model::parse_config(config_of(shape), "gpu_bench"), options);
  optim::OptimConfig config;
  config.beta2 = 0.95;
  config.weight_decay = 0.1;
  optim::ShardedParameters engine(
      decoder.units(), {comm::Group(), comm::Group()}, config, decoder.dtype(), decoder.device());
  engine.load(fill_at_random);
  decoder.set_hooks(&engine);

  const auto documents = documents_of(batch > 0 ? batch : shape.batch);
  const model::Rows rows = model::Rows::from_documents(documents);
  const at::Tensor targets = targets_of(documents).to(decoder.device());
  tensor::TokenLossOptions loss_options;
  loss_options.scale = 1.0 / static_cast<double>(documents.size() * (kGpuLength - 1));
  wait_for(decoder.device());
  for (int i = 0; i < steps; ++i) {
    const double start = seconds_now();
    engine.begin_micro_batch(true);
    const tensor::TokenLoss loss = decoder.loss(decoder.forward(rows), targets, loss_options);
    torch::autograd::backward({loss.loss}, {});
    if (engine.finish_gradients(1.0).finite) {
      engine.update(i + 1, 1e-4);
    }
    wait_for(decoder.device());
    std::cout << fmt::format("{{\"seconds\": {}, \"loss\": {}}}\n",
                             seconds_now() - start,
                             loss.nll_sum / static_cast<double>(loss.targets))
              << std::flush;
  }
  std::cout << fmt::format("{{\"peak_bytes\": {}}}\n", gpu.memory().peak_bytes) << std::flush;
  return 0;
}

}  // namespace kamerton::bench
