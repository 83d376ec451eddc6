// SPDX-License-Identifier: Apache-2.0
#include "device_update.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "sharded_state.h"

namespace kamerton::optim {

namespace {

/// Elements whose doubles may exist at once.
constexpr int64_t kNormSlice = int64_t{1} << 24;

/// The tensors of all segments with one kind of decay.
struct Lists {
  std::vector<at::Tensor> params, grads, first, second;
};

/// Calls body(offset into the part, length, decay) for each segment's share of the part.
template <class Body>
void for_segments(const DevicePart& part, const Body& body) {
  for (const DecaySegment& segment : *part.segments) {
    const int64_t from = std::max<int64_t>(0, segment.begin - part.begin);
    const int64_t to = std::min<int64_t>(part.param.numel(), segment.end - part.begin);
    if (from < to) {
      body(from, to - from, segment.decay);
    }
  }
}

void run_adamw(Lists& lists, const OptimConfig& config, const DeviceStep& step, double decay) {
  if (lists.params.empty()) {
    return;
  }
  const at::TensorOptions options = lists.params.front().options();
  const at::Tensor number = at::full({}, static_cast<double>(step.number), options);
  const std::vector<at::Tensor> numbers(lists.params.size(), number);  // read only
  // The kernel divides gradients by the scale.
  const at::Tensor scale = at::full({}, 1.0 / step.clip, options);
  at::_fused_adamw_(lists.params,
                    lists.grads,
                    lists.first,
                    lists.second,
                    /*max_exp_avg_sqs=*/{},
                    numbers,
                    step.lr,
                    config.beta1,
                    config.beta2,
                    decay,
                    config.eps,
                    /*amsgrad=*/false,
                    /*maximize=*/false,
                    step.clip == 1.0 ? std::optional<at::Tensor>() : scale);
}

void update_adamw(const std::vector<DevicePart>& parts,
                  const OptimConfig& config,
                  const DeviceStep& step) {
  Lists decayed;
  Lists kept;
  for (const DevicePart& part : parts) {
    for_segments(part, [&](int64_t at, int64_t n, bool decay) {
      Lists& lists = decay ? decayed : kept;
      lists.params.push_back(part.param.narrow(0, at, n));
      lists.grads.push_back(part.grad.narrow(0, at, n));
      lists.first.push_back(part.moments[0].narrow(0, at, n));
      lists.second.push_back(part.moments[1].narrow(0, at, n));
    });
  }
  run_adamw(decayed, config, step, config.weight_decay);
  run_adamw(kept, config, step, 0.0);
}

/// g = clip * g + wd * p; buffer = momentum * buffer + g; p -= lr * buffer.
void update_sgd(const std::vector<DevicePart>& parts,
                const OptimConfig& config,
                const DeviceStep& step) {
  for (const DevicePart& part : parts) {
    for_segments(part, [&](int64_t at, int64_t n, bool decay) {
      at::Tensor param = part.param.narrow(0, at, n);
      at::Tensor change = part.grad.narrow(0, at, n).mul_(step.clip);
      if (decay) {
        change.add_(param, config.weight_decay);
      }
      if (!part.moments.empty()) {
        at::Tensor buffer = part.moments[0].narrow(0, at, n);
        change = buffer.mul_(config.momentum).add_(change);
      }
      param.add_(change, -step.lr);
    });
  }
}

}  // namespace

void update_parts(const std::vector<DevicePart>& parts,
                  const OptimConfig& config,
                  const DeviceStep& step) {
  const at::NoGradGuard no_grad;
  config.algorithm == "adamw" ? update_adamw(parts, config, step) : update_sgd(parts, config, step);
  for (const DevicePart& part : parts) {
    if (part.low.defined()) {
      part.low.copy_(part.param);
    }
  }
}

double device_sum_of_squares(const std::vector<at::Tensor>& parts) {
  const at::NoGradGuard no_grad;
  at::Tensor total;
  for (const at::Tensor& part : parts) {
    for (int64_t begin = 0; begin < part.numel(); begin += kNormSlice) {
      const at::Tensor slice = part.narrow(0, begin, std::min(kNormSlice, part.numel() - begin));
      const at::Tensor sum = slice.to(at::kDouble).square_().sum();
      total = total.defined() ? total.add_(sum) : sum;
    }
  }
  return total.defined() ? total.item<double>() : 0.0;
}

void ShardedParameters::State::update_device(int64_t number, double lr) {
  std::vector<DevicePart> parts;
  for (UnitStore& store : units) {
    if (store.trainable.layout.padded == 0) {
      continue;
    }
    DevicePart part{.begin = part_begin(store.trainable),
                    .param = master_part(store),
                    .low = {},
                    .grad = store.training.gradient_part,
                    .moments = store.training.moments,
                    .segments = &store.training.segments};
    if (master_apart()) {
      part.low = stage == 0 ? store.trainable.whole.whole() : store.trainable.shard;
    }
    parts.push_back(std::move(part));
  }
  update_parts(parts, config, {.number = number, .lr = lr, .clip = clip_factor});
}

}  // namespace kamerton::optim
