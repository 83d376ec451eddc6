// SPDX-License-Identifier: Apache-2.0
// The optimizer's pass over this rank's parts.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>

#include "kamerton/core/error.h"

#include "sharded_state.h"

namespace kamerton::optim {

void ShardedParameters::State::prepare_state() {
  if (state_ready) {
    return;
  }
  for (UnitStore& store : units) {
    for (const StateKind& kind : kinds) {
      store.training.moments.push_back(at::zeros(
          {kind.length(store.unit, part_length(store.trainable))}, wide().dtype(kind.dtype)));
    }
    for (const FlatSlot& slot : store.trainable.layout.slots) {
      for (const SharedKind& kind : shared_kinds(config, *slot.parameter)) {
        shared[slot.parameter.get()].push_back(at::zeros(kind.shape, wide()));
      }
    }
  }
  state_ready = true;
  reset_to_values(kStart);
  reset_to_values(kAverage);
}

std::vector<UpdatePart> ShardedParameters::State::update_parts() {
  std::vector<UpdatePart> parts;
  for (UnitStore& store : units) {
    if (store.trainable.layout.padded == 0) {
      continue;
    }
    UpdatePart part;
    part.unit = &store.unit;
    part.layout = &store.trainable.layout;
    part.begin = part_begin(store.trainable);
    part.param = master_part(store);
    part.grad = store.training.gradient_part;
    const auto& moments = store.training.moments;
    part.state.assign(moments.begin(),
                      moments.begin() + static_cast<int64_t>(num_rule_kinds(config)));
    part.segments = &store.training.segments;
    part.own = groups.shard.rank() * store.trainable.layout.shard - part.begin;
    part.own_length = store.trainable.layout.shard;
    if (master_apart()) {
      part.low = stage == 0 ? store.trainable.whole.whole() : store.trainable.shard;
    }
    parts.push_back(std::move(part));
  }
  return parts;
}

void ShardedParameters::update(int64_t update_number, double lr, int64_t step) {
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
  const bool learns = state.budget.has_value() && state.budget->learns(step);
  const std::vector<at::Tensor> gradients =
      learns ? state.copies_of_gradients() : std::vector<at::Tensor>{};
  state.rule->update(state.update_parts(),
                     {.number = update_number,
                      .lr = lr,
                      .clip = state.clip_factor,
                      .shard = &state.groups.shard,
                      .shared = &state.shared});
  if (learns) {
    state.learn_sensitivity(gradients);
  }
  if (const auto kept = state.budget ? state.budget->triplets_after(step) : std::nullopt) {
    state.prune_triplets(*kept);
  }
  state.update_average();
  state.updates_done = update_number;
  if (state.stage == 1 || state.stage == 2) {
    for (UnitStore& store : state.units) {
      state.share_values(store.trainable);
    }
  }
}

}  // namespace kamerton::optim
