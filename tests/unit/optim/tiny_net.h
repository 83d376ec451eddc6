// SPDX-License-Identifier: Apache-2.0
// A small network in units, its data, and a training run over ranks: what the tests of sharding
// share. T rows of the global batch, V vocabulary, D width, F inner width, R adapter rank.
#pragma once

#include <map>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include "kamerton/core/random.h"
#include "kamerton/optim/schedule.h"
#include "kamerton/optim/sharded_parameters.h"
#include "kamerton/tensor/param_unit.h"

namespace kamerton::optim::testing {

struct NetOptions {
  bool tied = true;       ///< the embedding is the output head too
  bool adapters = false;  ///< base weights frozen, low-rank factors trained
  bool checkpoint = false;
  int64_t vocabulary = 37;
  int64_t width = 24;
  int64_t inner = 40;
  int blocks = 3;
};

class TinyNet {
 public:
  explicit TinyNet(const NetOptions& options) : options_(options) {
    const int64_t d = options.width;
    add_unit("embed", {{"embed.weight", {options.vocabulary, d}}});
    for (int block = 0; block < options.blocks; ++block) {
      const std::string at = "layers." + std::to_string(block);
      add_unit(at,
               {{at + ".norm", {d}},
                {at + ".up", {options.inner, d}},
                {at + ".up_bias", {options.inner}},
                {at + ".down", {d, options.inner}}});
      if (options.adapters) {
        add(units.back(), at + ".lora_a", {3, d}, true);
        add(units.back(), at + ".lora_b", {options.inner, 3}, true);
      }
    }
    if (!options.tied) {
      add_unit("head", {{"head.weight", {options.vocabulary, d}}});
    }
  }

  /// Summed cross entropy of predicting targets [T] from tokens [T]; target -1: none. `scale`
  /// multiplies it.
  at::Tensor loss(tensor::UnitHooks* hooks,
                  const at::Tensor& tokens,
                  const at::Tensor& targets,
                  double scale) {
    const auto anchor = at::zeros({1}, at::kFloat).requires_grad_(at::GradMode::is_enabled());
    at::Tensor x = tensor::run_unit(hooks, units[0], anchor, false, [&](const at::Tensor& a) {
      return at::index_select(value(0, 0), 0, tokens) + a.to(value(0, 0).scalar_type()) * 0;
    });
    for (int block = 0; block < options_.blocks; ++block) {
      x = tensor::run_unit(
          hooks, units[1 + block], x, options_.checkpoint, [this, block](const at::Tensor& in) {
            return body(block, in);
          });
    }
    const size_t head = options_.tied ? 0 : units.size() - 1;
    const auto logits = tensor::run_unit(hooks, units[head], x, false, [&](const at::Tensor& in) {
      return at::linear(in, value(head, 0));
    });
    return at::cross_entropy_loss(logits.to(at::kFloat), targets, {}, at::Reduction::Sum, -1) *
           scale;
  }

  static float initial(const std::string& name, int64_t index, size_t dims) {
    const double noise = core::RandomStream(7, name).normal(static_cast<uint64_t>(index));
    return static_cast<float>(dims < 2 ? 1.0 + 0.1 * noise : 0.3 * noise);
  }

  std::vector<tensor::ParamUnit> units;

 private:
  void add_unit(const std::string& name,
                const std::vector<std::pair<std::string, std::vector<int64_t>>>& parameters) {
    units.push_back({static_cast<int>(units.size()), name, {}});
    for (const auto& [parameter, shape] : parameters) {
      add(units.back(), parameter, shape, !options_.adapters);
    }
  }
  static void add(tensor::ParamUnit& unit,
                  const std::string& name,
                  std::vector<int64_t> shape,
                  bool trainable) {
    auto parameter = std::make_shared<tensor::Parameter>();
    parameter->name = name;
    parameter->shape = std::move(shape);
    parameter->trainable = trainable;
    parameter->adapter = name.find("lora") != std::string::npos;
    unit.parameters.push_back(std::move(parameter));
  }
  const at::Tensor& value(size_t unit, size_t index) const {
    return units[unit].parameters[index]->value;
  }

  at::Tensor body(int block, const at::Tensor& in) const {
    const size_t unit = static_cast<size_t>(block) + 1;
    const auto normed = in * value(unit, 0);
    auto up = at::linear(normed, value(unit, 1), value(unit, 2));
    if (options_.adapters) {
      up = up + at::linear(at::linear(normed, value(unit, 4)), value(unit, 5));
    }
    return in + at::linear(at::tanh(up), value(unit, 3));
  }

  NetOptions options_;
};

/// Row t of step s: a token and a target, missing for about a third of the rows.
struct Batch {
  at::Tensor tokens;
  at::Tensor targets;
  int64_t num_targets = 0;
};

inline constexpr int64_t kRows = 72;  ///< divisible by 1, 2, 3, 4 ranks times 1, 3 micro-batches

inline Batch batch_of(int64_t step, int64_t vocabulary) {
  Batch batch{at::empty({kRows}, at::kLong), at::empty({kRows}, at::kLong), 0};
  const core::RandomStream random(11, "batch", static_cast<uint64_t>(step));
  for (int64_t row = 0; row < kRows; ++row) {
    const auto i = static_cast<uint64_t>(row) * 3;
    const bool has_target = random.below(i + 2, 3) != 0;
    batch.tokens.data_ptr<int64_t>()[row] = static_cast<int64_t>(random.below(i, vocabulary));
    batch.targets.data_ptr<int64_t>()[row] =
        has_target ? static_cast<int64_t>(random.below(i + 1, vocabulary)) : -1;
    batch.num_targets += has_target ? 1 : 0;
  }
  return batch;
}

struct RunOptions {
  NetOptions net;
  OptimConfig optim;
  at::ScalarType dtype = at::kFloat;
  int steps = 8;
  int micro_batches = 1;
  int replicas = 1;  ///< of the ranks given: ranks = shard * replicas
};

struct RunResult {
  std::vector<double> losses;
  std::vector<double> norms;
  std::map<std::string, at::Tensor> weights;
};

inline OptimConfig adamw(int64_t stage) {
  OptimConfig config;
  config.zero_stage = stage;
  config.lr = 3e-3;
  config.weight_decay = 0.1;
  config.schedule = "constant";
  config.warmup_steps = 0;
  return config;
}

inline ShardGroups groups_of(const comm::Group& world, int replicas) {
  const int shard = world.size() / replicas;
  return {world.split(world.rank() / shard, world.rank(), "shard"),
          world.split(world.rank() % shard, world.rank(), "replicate")};
}

inline void fill_initial(const tensor::Parameter& parameter, int64_t offset, at::Tensor out) {
  auto values = at::empty({out.numel()}, at::kFloat);
  for (int64_t i = 0; i < out.numel(); ++i) {
    values.data_ptr<float>()[i] =
        TinyNet::initial(parameter.name, offset + i, parameter.shape.size());
  }
  out.copy_(values);
}

/// One step; the summed loss over ranks comes back. Rank r takes rows [r * n, (r + 1) * n),
/// micro-batches in order within.
inline double accumulate(TinyNet& net,
                         ShardedParameters& sharded,
                         const comm::Group& world,
                         const RunOptions& options,
                         int64_t step) {
  const Batch batch = batch_of(step, options.net.vocabulary);
  const int64_t rows = kRows / world.size() / options.micro_batches;
  double sum = 0.0;
  for (int micro = 0; micro < options.micro_batches; ++micro) {
    const int64_t begin = (world.rank() * options.micro_batches + micro) * rows;
    sharded.begin_micro_batch(micro + 1 == options.micro_batches);
    const auto loss = net.loss(&sharded,
                               batch.tokens.narrow(0, begin, rows),
                               batch.targets.narrow(0, begin, rows),
                               1.0 / static_cast<double>(batch.num_targets));
    torch::autograd::backward({loss}, {});
    sum += loss.item<double>();
  }
  return world.sum(sum);
}

inline RunResult train(const comm::Group& world, const RunOptions& options) {
  TinyNet net(options.net);
  ShardedParameters sharded(
      net.units, groups_of(world, options.replicas), options.optim, options.dtype);
  sharded.load(fill_initial);
  RunResult result;
  for (int step = 0; step < options.steps; ++step) {
    result.losses.push_back(accumulate(net, sharded, world, options, step));
    const GradientReport report = sharded.finish_gradients(options.optim.max_grad_norm);
    result.norms.push_back(report.norm);
    sharded.update(step + 1, learning_rate(options.optim, step, options.steps));
  }
  for (const auto& unit : net.units) {
    for (const auto& parameter : unit.parameters) {
      result.weights[parameter->name] = sharded.fetch(*parameter);
    }
  }
  return result;
}

/// The same run in one process with plain autograd and torch's own optimizer: nothing of this
/// module in it.
inline RunResult train_plainly(const RunOptions& options) {
  TinyNet net(options.net);
  tensor::place_whole(net.units, at::kFloat);
  struct Trained {
    at::Tensor value, exp_avg, exp_avg_sq, step;
    bool decay;
  };
  std::vector<Trained> trained;
  RunResult result;
  for (const auto& unit : net.units) {
    for (const auto& parameter : unit.parameters) {
      at::NoGradGuard no_grad;
      fill_initial(*parameter, 0, parameter->value.view({-1}));
      result.weights[parameter->name] = parameter->value;
      if (parameter->trainable) {
        trained.push_back({parameter->value,
                           at::zeros_like(parameter->value),
                           at::zeros_like(parameter->value),
                           at::zeros({}, at::kFloat),
                           parameter->shape.size() >= 2});
      }
    }
  }
  for (int step = 0; step < options.steps; ++step) {
    const Batch batch = batch_of(step, options.net.vocabulary);
    const auto loss = net.loss(
        nullptr, batch.tokens, batch.targets, 1.0 / static_cast<double>(batch.num_targets));
    torch::autograd::backward({loss}, {});
    at::NoGradGuard no_grad;
    double squares = 0.0;
    for (const auto& t : trained) {
      squares += t.value.grad().to(at::kDouble).pow(2).sum().item<double>();
    }
    const double norm = std::sqrt(squares);
    const double lr = learning_rate(options.optim, step, options.steps);
    for (auto& t : trained) {
      t.value.mutable_grad().mul_(std::min(1.0, options.optim.max_grad_norm / (norm + 1e-6)));
      t.step.add_(1);
      at::_fused_adamw_({t.value},
                        {t.value.grad()},
                        {t.exp_avg},
                        {t.exp_avg_sq},
                        {},
                        {t.step},
                        lr,
                        options.optim.beta1,
                        options.optim.beta2,
                        t.decay ? options.optim.weight_decay : 0.0,
                        options.optim.eps,
                        false,
                        false,
                        {},
                        {});
      t.value.mutable_grad().reset();
    }
    result.losses.push_back(loss.item<double>());
    result.norms.push_back(norm);
  }
  return result;
}

inline double largest_difference(const RunResult& a, const RunResult& b) {
  double worst = 0.0;
  for (const auto& [name, weight] : a.weights) {
    worst = std::max(worst,
                     (weight.detach().to(at::kDouble) - b.weights.at(name).detach().to(at::kDouble))
                         .abs()
                         .max()
                         .item<double>());
  }
  return worst;
}

inline bool same_bits(const RunResult& a, const RunResult& b) {
  bool same = a.losses == b.losses && a.norms == b.norms && a.weights.size() == b.weights.size();
  for (const auto& [name, weight] : a.weights) {
    same = same && at::equal(weight, b.weights.at(name));
  }
  return same;
}

}  // namespace kamerton::optim::testing
