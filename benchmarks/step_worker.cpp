// SPDX-License-Identifier: Apache-2.0
#include "step_worker.h"

#include <chrono>
#include <ctime>
#include <iostream>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <torch/csrc/autograd/autograd.h>

#include "kamerton/comm/session.h"
#include "kamerton/model/weights.h"
#include "kamerton/optim/sharded_parameters.h"
#include "kamerton/tensor/allocator.h"

#include "step_shapes.h"

namespace kamerton::bench {
namespace {

double wall_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}
double cpu_seconds() {
  return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
}

model::DecoderConfig config_named(const std::string& name) {
  for (const StepShape& shape : kStepShapes) {
    if (name == shape.name) {
      return model::parse_config(config_of(shape), "step_bench");
    }
  }
  throw std::invalid_argument("no such shape: " + name);
}

/// The peer's tokens: a fixed sequence, cut into documents of `length`.
std::vector<std::vector<int64_t>> documents_of(const WorkerOptions& options) {
  std::vector<std::vector<int64_t>> documents(static_cast<size_t>(options.batch));
  for (int64_t i = 0; i < options.batch * options.length; ++i) {
    documents[static_cast<size_t>(i / options.length)].push_back((i * 7919 + 13) % 31999);
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

/// One optimizer update; returns the loss.
double step(model::Decoder& decoder,
            optim::ShardedParameters& engine,
            const model::Rows& rows,
            const at::Tensor& targets,
            double scale,
            int64_t update) {
  engine.begin_micro_batch(true);
  tensor::TokenLossOptions options;
  options.scale = scale;
  const tensor::TokenLoss loss = decoder.loss(decoder.forward(rows), targets, options);
  torch::autograd::backward({loss.loss}, {});
  engine.finish_gradients(1.0);
  engine.update(update, 1e-4);
  return loss.nll_sum / static_cast<double>(loss.targets);
}

}  // namespace

int run_worker(int argc, char** argv, const WorkerOptions& options) {
  tensor::install_allocator();
  comm::Session session(argc, argv);
  at::set_num_threads(options.threads);
  model::ModelOptions model_options;
  model_options.random_init = true;
  model_options.dtype = options.dtype;
  model::Decoder decoder(config_named(options.shape), model_options);
  optim::OptimConfig config;
  config.beta2 = 0.95;
  config.weight_decay = 0.1;
  optim::ShardedParameters engine(
      decoder.units(), {session.world(), comm::Group()}, config, decoder.dtype());
  const auto weights = model::open_weights(model_options, decoder);
  engine.load([&](const tensor::Parameter& parameter, int64_t offset, at::Tensor out) {
    weights->read(parameter, offset, out);
  });
  decoder.set_hooks(&engine);

  const auto documents = documents_of(options);
  const model::Rows rows = model::Rows::from_documents(documents);
  const at::Tensor targets = targets_of(documents);
  const double count =
      static_cast<double>(options.batch) * (options.length - 1) * session.topology().world_size;
  const bool speaks = session.topology().rank == 0;
  for (int i = 0; i < options.steps; ++i) {
    const double start = wall_seconds();
    const double cpu = cpu_seconds();
    const double loss = step(decoder, engine, rows, targets, 1.0 / count, i + 1);
    if (speaks) {
      std::cout << fmt::format("{{\"seconds\": {}, \"cpu\": {}, \"loss\": {}}}\n",
                               wall_seconds() - start,
                               cpu_seconds() - cpu,
                               loss)
                << std::flush;
    }
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  if (speaks) {
    std::cout << fmt::format("{{\"peak_bytes\": {}}}\n", usage.ru_maxrss * 1024) << std::flush;
  }
  return 0;
}

}  // namespace kamerton::bench
