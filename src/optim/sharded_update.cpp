// SPDX-License-Identifier: Apache-2.0
// The optimizer's pass over this rank's part.
#include <algorithm>
#include <cmath>

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>

#include "kamerton/core/error.h"

#include "sharded_state.h"
#include "update_kernels.h"

namespace kamerton::optim {

namespace {

/// Elements a thread takes at a time.
constexpr int64_t kGrain = 32768;

/// The arrays of one unit's part; element 0 is element `begin` of the flat buffer.
struct PartArrays {
  int64_t begin = 0;
  int64_t length = 0;
  float* param = nullptr;
  uint16_t* low = nullptr;
  const float* grad = nullptr;
  float* moments[2] = {nullptr, nullptr};
};

/// Calls body(offset into the part, length, decay) for each segment's share of [lo, hi).
template <class Body>
void for_segments(const std::vector<DecaySegment>& segments,
                  int64_t part_begin,
                  int64_t lo,
                  int64_t hi,
                  const Body& body) {
  auto segment =
      std::upper_bound(segments.begin(),
                       segments.end(),
                       part_begin + lo,
                       [](int64_t position, const DecaySegment& s) { return position < s.end; });
  for (; segment != segments.end() && segment->begin < part_begin + hi; ++segment) {
    const int64_t from = std::max(lo, segment->begin - part_begin);
    const int64_t to = std::min(hi, segment->end - part_begin);
    if (from < to) {
      body(from, to - from, segment->decay);
    }
  }
}

AdamwFactors adamw_factors(const OptimConfig& config, int64_t number, double lr, double clip) {
  const auto t = static_cast<double>(number);
  AdamwFactors factors;
  factors.clip = static_cast<float>(clip);
  factors.one_minus_beta1 = static_cast<float>(1.0 - config.beta1);
  factors.beta2 = static_cast<float>(config.beta2);
  factors.one_minus_beta2 = static_cast<float>(1.0 - config.beta2);
  factors.step_size = static_cast<float>(lr / (1.0 - std::pow(config.beta1, t)));
  factors.inv_sqrt_bias2 = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(config.beta2, t)));
  factors.eps = static_cast<float>(config.eps);
  return factors;
}

void update_adamw(const PartArrays& part,
                  const std::vector<DecaySegment>& segments,
                  AdamwFactors factors,
                  double decay) {
  at::parallel_for(0, part.length, kGrain, [&](int64_t lo, int64_t hi) {
    for_segments(segments, part.begin, lo, hi, [&](int64_t at, int64_t n, bool decayed) {
      AdamwFactors own = factors;
      own.keep = decayed ? static_cast<float>(1.0 - decay) : 1.0F;
      adamw(part.param + at,
            part.low != nullptr ? part.low + at : nullptr,
            part.grad + at,
            part.moments[0] + at,
            part.moments[1] + at,
            n,
            own);
    });
  });
}

void update_sgd(const PartArrays& part,
                const std::vector<DecaySegment>& segments,
                SgdFactors factors) {
  at::parallel_for(0, part.length, kGrain, [&](int64_t lo, int64_t hi) {
    for_segments(segments, part.begin, lo, hi, [&](int64_t at, int64_t n, bool decayed) {
      SgdFactors own = factors;
      own.weight_decay = decayed ? factors.weight_decay : 0.0F;
      sgd(part.param + at,
          part.low != nullptr ? part.low + at : nullptr,
          part.grad + at,
          part.moments[0] != nullptr ? part.moments[0] + at : nullptr,
          n,
          own);
    });
  });
}

}  // namespace

void ShardedParameters::State::prepare_state() {
  if (state_ready) {
    return;
  }
  for (UnitStore& store : units) {
    for (int i = 0; i < num_moments(config); ++i) {
      store.training.moments.push_back(at::zeros({part_length(store.trainable)}, wide()));
    }
  }
  state_ready = true;
}

void ShardedParameters::update(int64_t update_number, double lr) {
  if (update_number < 1 || state_->in_step) {
    throw core::Error(core::ErrorKind::Internal,
                      {.where = "optim.update",
                       .what = "an update needs finish_gradients() and a number from 1 on",
                       .got = std::to_string(update_number),
                       .allowed = {},
                       .hint = {}});
  }
  const at::NoGradGuard no_grad;
  State& state = *state_;
  state.settle();
  state.prepare_state();
  state.device.is_cpu() ? state.update_host(update_number, lr)
                        : state.update_device(update_number, lr);
  if (state.stage == 1 || state.stage == 2) {
    for (UnitStore& store : state.units) {
      state.share_values(store.trainable);
    }
  }
}

void ShardedParameters::State::update_host(int64_t number, double lr) {
  for (UnitStore& store : units) {
    if (store.trainable.layout.padded == 0) {
      continue;
    }
    PartArrays part;
    part.begin = part_begin(store.trainable);
    part.length = part_length(store.trainable);
    part.param = master_part(store).data_ptr<float>();
    part.grad = store.training.gradient_part.const_data_ptr<float>();
    if (master_apart()) {
      at::Tensor low = stage == 0 ? store.trainable.whole.whole() : store.trainable.shard;
      part.low = reinterpret_cast<uint16_t*>(low.data_ptr<at::BFloat16>());
    }
    for (size_t i = 0; i < store.training.moments.size(); ++i) {
      part.moments[i] = store.training.moments[i].data_ptr<float>();
    }
    if (config.algorithm == "adamw") {
      update_adamw(part,
                   store.training.segments,
                   adamw_factors(config, number, lr, clip_factor),
                   lr * config.weight_decay);
    } else {
      update_sgd(part,
                 store.training.segments,
                 {.clip = static_cast<float>(clip_factor),
                  .weight_decay = static_cast<float>(config.weight_decay),
                  .momentum = static_cast<float>(config.momentum),
                  .lr = static_cast<float>(lr)});
    }
  }
}

}  // namespace kamerton::optim
