// SPDX-License-Identifier: Apache-2.0
#include "device_update.h"

#include <algorithm>
#include <utility>

#include <ATen/ATen.h>

namespace kamerton::optim {

namespace {

/// Elements whose doubles may exist at once.
constexpr int64_t kNormSlice = int64_t{1} << 24;

/// The tensors of all segments of one treatment.
struct Lists {
  Treatment treatment;
  std::vector<at::Tensor> params, grads, first, second;
};

template <class Body>
void for_part_of_device(const UpdatePart& part, const Body& body) {
  for_segments(*part.segments, part.begin, 0, part.param.numel(), body);
}

Lists& lists_of(std::vector<Lists>& all, const Treatment& treatment) {
  for (Lists& lists : all) {
    if (lists.treatment == treatment) {
      return lists;
    }
  }
  all.push_back({treatment, {}, {}, {}, {}});
  return all.back();
}

void run_adamw(Lists& lists, const OptimConfig& config, const UpdateStep& step) {
  const at::TensorOptions options = lists.params.front().options();
  const at::Tensor number =
      at::full({}, static_cast<double>(step.number - lists.treatment.born), options);
  const std::vector<at::Tensor> numbers(lists.params.size(), number);  // read only
  // The kernel divides gradients by the scale.
  const at::Tensor scale = at::full({}, 1.0 / step.clip, options);
  at::_fused_adamw_(lists.params,
                    lists.grads,
                    lists.first,
                    lists.second,
                    /*max_exp_avg_sqs=*/{},
                    numbers,
                    step.lr * lists.treatment.lr_ratio,
                    config.beta1,
                    config.beta2,
                    lists.treatment.weight_decay,
                    config.eps,
                    /*amsgrad=*/false,
                    /*maximize=*/false,
                    step.clip == 1.0 ? std::optional<at::Tensor>() : scale);
}

}  // namespace

void DeviceUpdate::update_adamw(const std::vector<UpdatePart>& parts,
                                const UpdateStep& step) const {
  std::vector<Lists> all;
  for (const UpdatePart& part : parts) {
    for_part_of_device(part, [&](int64_t at, int64_t n, const Treatment& treatment) {
      Lists& lists = lists_of(all, treatment);
      lists.params.push_back(part.param.narrow(0, at, n));
      lists.grads.push_back(part.grad.narrow(0, at, n));
      lists.first.push_back(part.state[0].narrow(0, at, n));
      lists.second.push_back(part.state[1].narrow(0, at, n));
    });
  }
  for (Lists& lists : all) {
    run_adamw(lists, config_, step);
  }
}

/// g = clip * g + wd * p; buffer = momentum * buffer + g; p -= lr * buffer.
void DeviceUpdate::update_sgd(const std::vector<UpdatePart>& parts, const UpdateStep& step) const {
  for (const UpdatePart& part : parts) {
    for_part_of_device(part, [&](int64_t at, int64_t n, const Treatment& treatment) {
      at::Tensor param = part.param.narrow(0, at, n);
      at::Tensor change = part.grad.narrow(0, at, n).mul_(step.clip);
      if (treatment.weight_decay != 0.0) {
        change.add_(param, treatment.weight_decay);
      }
      if (!part.state.empty()) {
        at::Tensor buffer = part.state[0].narrow(0, at, n);
        change = buffer.mul_(config_.momentum).add_(change);
      }
      param.add_(change, -step.lr * treatment.lr_ratio);
    });
  }
}

void DeviceUpdate::update(const std::vector<UpdatePart>& parts, const UpdateStep& step) {
  const at::NoGradGuard no_grad;
  config_.algorithm == "adamw" ? update_adamw(parts, step) : update_sgd(parts, step);
  for (const UpdatePart& part : parts) {
    if (part.low.defined()) {
      at::Tensor low = part.low;
      low.copy_(part.param);
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

}  // namespace kamerton::optim
