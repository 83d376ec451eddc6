// SPDX-License-Identifier: Apache-2.0
// What is kept of the weights beside the optimizer's state: where they started and how much each
// element matters (L2 to the start; EWC, arXiv 1612.00796), and their moving average.
#include <ATen/ATen.h>

#include "kamerton/core/error.h"

#include "sharded_state.h"

namespace kamerton::optim {

/// The part of that kind; undefined when it is not kept or not there yet.
at::Tensor ShardedParameters::State::state_part(const UnitStore& store, const char* kind) const {
  for (size_t i = 0; i < store.training.moments.size(); ++i) {
    if (kinds[i].prefix == kind) {
      return store.training.moments[i];
    }
  }
  return {};
}

/// The state becomes what the weights are now.
void ShardedParameters::State::reset_to_values(const char* kind) {
  for (UnitStore& store : units) {
    if (at::Tensor part = state_part(store, kind); part.defined()) {
      part.copy_(master_part(store));
    }
  }
}

/// Adds (l2 + ewc * importance) * (weights - start) to the reduced gradients. Returns this rank's
/// shard of the penalty itself.
double ShardedParameters::State::add_penalties() {
  double penalty = 0.0;
  for (UnitStore& store : units) {
    const at::Tensor start = state_part(store, kStart);
    if (!start.defined() || store.trainable.layout.padded == 0) {
      continue;
    }
    const at::Tensor distance = master_part(store) - start;
    const at::Tensor importance = state_part(store, kImportance);
    at::Tensor pull = distance * config.l2;
    if (importance.defined()) {
      pull.addcmul_(importance, distance, config.ewc);
    }
    store.training.gradient_part.add_(pull);
    const at::Tensor own =
        shard_of_part(pull, store.trainable) * shard_of_part(distance, store.trainable);
    penalty += 0.5 * own.sum(at::kDouble).item<double>();
  }
  return penalty;
}

void ShardedParameters::State::update_average() {
  for (UnitStore& store : units) {
    if (at::Tensor average = state_part(store, kAverage); average.defined()) {
      average.lerp_(master_part(store), 1.0 - config.ema_decay);
    }
  }
}

/// The whole gradient of this rank's example is in the unit's buffer: its square is summed over the
/// examples of all ranks.
void ShardedParameters::State::square(UnitStore& store) {
  UnitTraining& training = store.training;
  if (store.trainable.layout.padded == 0) {
    return;
  }
  if (squaring == Squaring::On) {
    at::Tensor whole = training.gradients.whole();
    whole.square_();
    const at::Tensor importance = state_part(store, kImportance);
    if (stage == 0) {
      groups.shard.all_reduce(whole);
      importance.add_(whole);
    } else {
      at::Tensor sum = at::empty({store.trainable.layout.shard}, wide());
      groups.shard.reduce_scatter(whole, sum);
      importance.add_(sum);
    }
  }
  if (stage >= 2) {
    drop(training.gradients);
  }
  training.touched = false;
  training.uses = 0;
}

void ShardedParameters::measure_importance(int64_t passes,
                                           int64_t examples,
                                           const std::function<void(int64_t)>& pass) {
  State& state = *state_;
  const auto run = [&](int64_t index, State::Squaring mode) {
    begin_micro_batch(true);
    state.squaring = mode;
    pass(index);
    const at::NoGradGuard no_grad;
    state.settle();
    state.in_step = false;
    state.squaring = State::Squaring::Off;
  };
  state.prepare_state();
  for (UnitStore& store : state.units) {
    if (at::Tensor importance = state.state_part(store, kImportance); importance.defined()) {
      importance.zero_();
    }
  }
  if (passes > 0) {
    run(0, State::Squaring::Learning);  // how often each unit is used
  }
  for (int64_t index = 0; index < passes; ++index) {
    run(index, State::Squaring::On);
  }
  const at::NoGradGuard no_grad;
  for (UnitStore& store : state.units) {
    at::Tensor importance = state.state_part(store, kImportance);
    if (!importance.defined() || store.trainable.layout.padded == 0) {
      continue;
    }
    if (state.groups.replicate.size() > 1) {
      state.groups.replicate.all_reduce(importance);
    }
    importance.div_(static_cast<double>(std::max<int64_t>(examples, 1)));
  }
}

void ShardedParameters::anchor_here() {
  const at::NoGradGuard no_grad;
  state_->prepare_state();
  state_->reset_to_values(kStart);
}

}  // namespace kamerton::optim
