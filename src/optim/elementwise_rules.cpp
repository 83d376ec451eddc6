// SPDX-License-Identifier: Apache-2.0
// AdamW and SGD on the processor: an element's update needs nothing but the element.
#include "elementwise_rules.h"

#include <cmath>

#include <ATen/Parallel.h>

#include "update_kernels.h"

namespace kamerton::optim {

namespace {

/// Elements a thread takes at a time.
constexpr int64_t kGrain = 32768;

/// Calls body(offset, length, treatment) over the part, by several threads.
template <class Body>
void for_part(const UpdatePart& part, const Body& body) {
  at::parallel_for(0, part.param.numel(), kGrain, [&](int64_t lo, int64_t hi) {
    for_segments(*part.segments, part.begin, lo, hi, body);
  });
}

uint16_t* low_data(const UpdatePart& part) {
  return part.low.defined() ? reinterpret_cast<uint16_t*>(part.low.data_ptr<at::BFloat16>())
                            : nullptr;
}

uint16_t* shifted(uint16_t* data, int64_t offset) {
  return data == nullptr ? nullptr : data + offset;
}

}  // namespace

AdamwFactors adamw_factors(const OptimConfig& config,
                           const UpdateStep& step,
                           const Treatment& treatment) {
  const auto t = static_cast<double>(step.number - treatment.born);
  const double lr = step.lr * treatment.lr_ratio;
  AdamwFactors factors;
  factors.clip = static_cast<float>(step.clip);
  factors.keep = static_cast<float>(1.0 - lr * treatment.weight_decay);
  factors.one_minus_beta1 = static_cast<float>(1.0 - config.beta1);
  factors.beta2 = static_cast<float>(config.beta2);
  factors.one_minus_beta2 = static_cast<float>(1.0 - config.beta2);
  factors.step_size = static_cast<float>(lr / (1.0 - std::pow(config.beta1, t)));
  factors.inv_sqrt_bias2 = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(config.beta2, t)));
  factors.eps = static_cast<float>(config.eps);
  return factors;
}

void Adamw::update(const std::vector<UpdatePart>& parts, const UpdateStep& step) {
  for (const UpdatePart& part : parts) {
    auto* param = part.param.data_ptr<float>();
    uint16_t* low = low_data(part);
    const auto* grad = part.grad.const_data_ptr<float>();
    auto* exp_avg = part.state[0].data_ptr<float>();
    auto* exp_avg_sq = part.state[1].data_ptr<float>();
    for_part(part, [&](int64_t at, int64_t n, const Treatment& treatment) {
      adamw(param + at,
            shifted(low, at),
            grad + at,
            exp_avg + at,
            exp_avg_sq + at,
            n,
            adamw_factors(config_, step, treatment));
    });
  }
}

void Sgd::update(const std::vector<UpdatePart>& parts, const UpdateStep& step) {
  for (const UpdatePart& part : parts) {
    auto* param = part.param.data_ptr<float>();
    uint16_t* low = low_data(part);
    const auto* grad = part.grad.const_data_ptr<float>();
    auto* buffer = part.state.empty() ? nullptr : part.state[0].data_ptr<float>();
    for_part(part, [&](int64_t at, int64_t n, const Treatment& treatment) {
      sgd(param + at,
          shifted(low, at),
          grad + at,
          buffer != nullptr ? buffer + at : nullptr,
          n,
          {.clip = static_cast<float>(step.clip),
           .weight_decay = static_cast<float>(treatment.weight_decay),
           .momentum = static_cast<float>(config_.momentum),
           .lr = static_cast<float>(step.lr * treatment.lr_ratio)});
    });
  }
}

}  // namespace kamerton::optim
