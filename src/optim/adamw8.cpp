// SPDX-License-Identifier: Apache-2.0
#include "adamw8.h"

#include <algorithm>
#include <cmath>

#include <ATen/Parallel.h>
#include <c10/util/BFloat16.h>

#include "blockwise.h"

namespace kamerton::optim {

namespace {

/// A block's arrays; state as codes with one scale each.
struct Block {
  float* param = nullptr;
  c10::BFloat16* low = nullptr;
  const float* grad = nullptr;
  uint8_t* first = nullptr;
  uint8_t* second = nullptr;
  float* first_scale = nullptr;
  float* second_scale = nullptr;
};

struct Factors {
  float clip = 1.0F;
  float beta1 = 0.9F;
  float beta2 = 0.999F;
  float step_size = 0.0F;    ///< lr / (1 - beta1^t)
  float correction2 = 1.0F;  ///< sqrt(1 - beta2^t)
  float eps = 0.0F;
  float keep = 1.0F;  ///< 1 - lr * weight_decay
};

Factors factors_of(const OptimConfig& config, const UpdateStep& step, const Treatment& treatment) {
  const auto t = static_cast<double>(step.number - treatment.born);
  const double lr = step.lr * treatment.lr_ratio;
  return {.clip = static_cast<float>(step.clip),
          .beta1 = static_cast<float>(config.beta1),
          .beta2 = static_cast<float>(config.beta2),
          .step_size = static_cast<float>(lr / (1.0 - std::pow(config.beta1, t))),
          .correction2 = static_cast<float>(std::sqrt(1.0 - std::pow(config.beta2, t))),
          .eps = static_cast<float>(config.eps),
          .keep = static_cast<float>(1.0 - lr * treatment.weight_decay)};
}

void update_block(const Block& block, const Factors& f) {
  const DynamicCode& signed_code = DynamicCode::with_sign();
  const DynamicCode& unsigned_code = DynamicCode::without_sign();
  float m[kCodeBlock];
  float v[kCodeBlock];
  float largest_m = 0.0F;
  float largest_v = 0.0F;
  for (int64_t i = 0; i < kCodeBlock; ++i) {
    const float g = block.grad[i] * f.clip;
    m[i] = signed_code.value(block.first[i]) * *block.first_scale * f.beta1 + (1.0F - f.beta1) * g;
    v[i] = unsigned_code.value(block.second[i]) * *block.second_scale * f.beta2 +
           (1.0F - f.beta2) * g * g;
    largest_m = std::max(largest_m, std::fabs(m[i]));
    largest_v = std::max(largest_v, v[i]);
    const float denominator = std::sqrt(v[i]) / f.correction2 + f.eps;
    const float p = block.param[i] * f.keep - f.step_size * m[i] / denominator;
    block.param[i] = p;
    if (block.low != nullptr) {
      block.low[i] = p;
    }
  }
  const float per_m = largest_m > 0.0F ? 1.0F / largest_m : 0.0F;
  const float per_v = largest_v > 0.0F ? 1.0F / largest_v : 0.0F;
  for (int64_t i = 0; i < kCodeBlock; ++i) {
    block.first[i] = signed_code.code(m[i] * per_m);
    block.second[i] = unsigned_code.code(v[i] * per_v);
  }
  *block.first_scale = largest_m;
  *block.second_scale = largest_v;
}

}  // namespace

std::vector<StateKind> Adamw8::kinds(const OptimConfig&) {
  return {{"exp_avg.", at::kByte},
          {"exp_avg_scale.", at::kFloat, kCodeBlock},
          {"exp_avg_sq.", at::kByte},
          {"exp_avg_sq_scale.", at::kFloat, kCodeBlock}};
}

void Adamw8::update(const std::vector<UpdatePart>& parts, const UpdateStep& step) {
  for (const UpdatePart& part : parts) {
    auto* param = part.param.data_ptr<float>();
    auto* low = part.low.defined() ? part.low.data_ptr<at::BFloat16>() : nullptr;
    const auto* grad = part.grad.const_data_ptr<float>();
    auto* first = part.state[0].data_ptr<uint8_t>();
    auto* first_scale = part.state[1].data_ptr<float>();
    auto* second = part.state[2].data_ptr<uint8_t>();
    auto* second_scale = part.state[3].data_ptr<float>();
    at::parallel_for(0, part.param.numel() / kCodeBlock, 64, [&](int64_t begin, int64_t end) {
      for_segments(*part.segments,
                   part.begin,
                   begin * kCodeBlock,
                   end * kCodeBlock,
                   [&](int64_t at, int64_t n, const Treatment& treatment) {
                     const Factors factors = factors_of(config_, step, treatment);
                     for (int64_t i = at; i < at + n; i += kCodeBlock) {
                       update_block({param + i,
                                     low == nullptr ? nullptr : low + i,
                                     grad + i,
                                     first + i,
                                     second + i,
                                     first_scale + i / kCodeBlock,
                                     second_scale + i / kCodeBlock},
                                    factors);
                     }
                   });
    });
  }
}

}  // namespace kamerton::optim
