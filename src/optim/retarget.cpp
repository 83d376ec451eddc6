// SPDX-License-Identifier: Apache-2.0
// Other parameters are trained from now on: values and state move between the flat buffers, a unit
// at a time.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "kamerton/core/error.h"

#include "sharded_state.h"

namespace kamerton::optim {

namespace {

int64_t blocks_of(int64_t elements, int64_t block) {
  return (elements + block - 1) / block;
}

/// A parameter's place in a unit as it was.
using Slots = std::unordered_map<const tensor::Parameter*, const FlatSlot*>;

Slots slots_of(const FlatLayout& layout) {
  Slots slots;
  for (const FlatSlot& slot : layout.slots) {
    slots[slot.parameter.get()] = &slot;
  }
  return slots;
}

/// Fills `target`, which begins at element `begin` of the flat buffer: the values of a parameter
/// come from `source`, whole and flattened; undefined: they stay as they are.
void copy_pieces(const FlatLayout& layout,
                 int64_t begin,
                 const at::Tensor& target,
                 int64_t block,
                 const std::function<at::Tensor(const tensor::Parameter&)>& source) {
  for (const SlotPart& piece : parts_within(layout, begin, begin + target.numel() * block)) {
    const at::Tensor whole = source(*piece.slot->parameter);
    if (whole.defined()) {
      const int64_t length = blocks_of(piece.length, block);
      target.narrow(0, (piece.flat - begin) / block, length)
          .copy_(whole.narrow(0, piece.begin / block, length));
    }
  }
}

/// A slot's values within a whole flat tensor.
at::Tensor slice(const at::Tensor& whole, const FlatSlot& slot, int64_t block) {
  return whole.narrow(0, slot.offset / block, blocks_of(slot.numel, block));
}

}  // namespace

/// All ranks' parts of a tensor that lies as the unit's flat buffer.
at::Tensor ShardedParameters::State::gather_part(const at::Tensor& part,
                                                 const UnitValues& values) const {
  if (stage == 0 || values.layout.padded == 0) {
    return part;
  }
  at::Tensor whole = at::empty({part.numel() * groups.shard.size()}, part.options());
  groups.shard.all_gather(part, whole);
  return whole;
}

/// Own shards of the values; after_load() shares them and makes the compute copies.
void ShardedParameters::State::fill_values(UnitStore& store, UnitStore& old) {
  const at::Tensor trained = gather_part(master_part(old), old.trainable);
  const at::Tensor frozen = stage < 3 || old.frozen.layout.padded == 0
                                ? old.frozen.whole.whole()
                                : gather_part(old.frozen.shard, old.frozen);
  const Slots was_trained = slots_of(old.trainable.layout);
  const Slots was_frozen = slots_of(old.frozen.layout);
  const auto source = [&](const tensor::Parameter& parameter) {
    const auto found = was_trained.find(&parameter);
    return found != was_trained.end() ? slice(trained, *found->second, 1)
                                      : slice(frozen, *was_frozen.at(&parameter), 1);
  };
  const int rank = groups.shard.rank();
  copy_pieces(store.trainable.layout,
              rank * store.trainable.layout.shard,
              shard_of_part(master_part(store), store.trainable),
              1,
              source);
  copy_pieces(store.frozen.layout, rank * store.frozen.layout.shard, store.frozen.shard, 1, source);
}

/// This rank's piece of what falls asleep; `whole`: the unit's state of one kind.
void ShardedParameters::State::put_to_sleep(const UnitStore& old,
                                            size_t kind,
                                            const at::Tensor& whole) {
  const int ranks = groups.shard.size();
  for (const FlatSlot& slot : old.trainable.layout.slots) {
    if (slot.parameter->trainable) {
      continue;
    }
    const at::Tensor state = slice(whole, slot, kinds[kind].block);
    const int64_t length = (state.numel() + ranks - 1) / ranks;
    at::Tensor piece = at::zeros({length}, state.options());
    const int64_t begin = std::min(groups.shard.rank() * length, state.numel());
    const int64_t end = std::min(begin + length, state.numel());
    piece.narrow(0, 0, end - begin).copy_(state.narrow(0, begin, end - begin));
    sleeping[slot.parameter.get()].pieces.push_back(piece);
  }
}

/// The state of one kind that a parameter fell asleep with; undefined when there is none.
at::Tensor ShardedParameters::State::awaken(const tensor::Parameter& parameter, size_t kind) const {
  const auto found = sleeping.find(&parameter);
  if (found == sleeping.end()) {
    return {};
  }
  const at::Tensor& piece = found->second.pieces[kind];
  at::Tensor whole = at::empty({piece.numel() * groups.shard.size()}, piece.options());
  groups.shard.all_gather(piece, whole);
  return whole;
}

void ShardedParameters::State::move_state(UnitStore& store,
                                          const UnitStore& old,
                                          StateOnRetarget policy) {
  const Slots was_trained = slots_of(old.trainable.layout);
  for (size_t kind = 0; kind < kinds.size(); ++kind) {
    const int64_t block = kinds[kind].block;
    store.training.moments.push_back(
        at::zeros({part_length(store.trainable) / block}, wide().dtype(kinds[kind].dtype)));
    if (policy == StateOnRetarget::Drop) {
      continue;
    }
    const at::Tensor whole = gather_part(old.training.moments[kind], old.trainable);
    std::unordered_map<const tensor::Parameter*, at::Tensor> awoken;  // collective: all ranks alike
    for (const FlatSlot& slot : store.trainable.layout.slots) {
      if (!was_trained.contains(slot.parameter.get())) {
        awoken[slot.parameter.get()] = awaken(*slot.parameter, kind);
      }
    }
    copy_pieces(store.trainable.layout,
                groups.shard.rank() * store.trainable.layout.shard,
                shard_of_part(store.training.moments[kind], store.trainable, block),
                block,
                [&](const tensor::Parameter& parameter) {
                  const auto found = was_trained.find(&parameter);
                  return found != was_trained.end() ? slice(whole, *found->second, block)
                                                    : awoken.at(&parameter);
                });
    if (policy == StateOnRetarget::Restore) {
      put_to_sleep(old, kind, whole);
    }
  }
  for (const FlatSlot& slot : store.trainable.layout.slots) {
    sleeping.erase(slot.parameter.get());
  }
}

/// How many updates the parameter has missed, from its new flag.
void ShardedParameters::State::note_birth(const tensor::Parameter& parameter,
                                          bool was_trained,
                                          StateOnRetarget policy) {
  const auto found = born.find(&parameter);
  const int64_t missed = found == born.end() ? 0 : found->second;
  if (was_trained || parameter.trainable) {
    once_trained.insert(&parameter);
  }
  if (!parameter.trainable) {
    if (was_trained && policy == StateOnRetarget::Restore) {
      sleeping[&parameter] = {updates_done - missed, {}};
    }
    born.erase(&parameter);
    return;
  }
  if (policy == StateOnRetarget::Drop || !was_trained) {
    const auto slept = sleeping.find(&parameter);
    born[&parameter] = updates_done - (slept == sleeping.end() ? 0 : slept->second.updates);
  }
}

void ShardedParameters::State::retarget_unit(
    UnitStore& store,
    const std::function<bool(const tensor::Parameter&)>& trainable,
    StateOnRetarget policy) {
  for (const tensor::ParameterPtr& parameter : store.unit.parameters) {
    const bool was_trained = parameter->trainable;
    parameter->trainable = trainable(*parameter);
    note_birth(*parameter, was_trained, policy);
  }
  UnitStore old = std::move(store);
  store = UnitStore{};
  store.unit = old.unit;
  place_unit(store);
  store.packed.shard.copy_(old.packed.shard);
  fill_values(store, old);
  if (state_ready) {
    move_state(store, old, policy);
  }
}

void ShardedParameters::retarget(const std::function<bool(const tensor::Parameter&)>& trainable,
                                 StateOnRetarget policy) {
  if (state_->in_step) {
    throw core::Error(core::ErrorKind::Internal,
                      {.where = "optim.retarget",
                       .what = "what is trained can change between steps only",
                       .hint = {}});
  }
  const at::NoGradGuard no_grad;
  state_->settle();
  if (policy == StateOnRetarget::Drop) {
    state_->sleeping.clear();
  } else {
    state_->prepare_state();
  }
  for (UnitStore& store : state_->units) {
    state_->retarget_unit(store, trainable, policy);
  }
  state_->index_places();
  after_load(true);
}

std::map<std::string, int64_t> ShardedParameters::update_counts() const {
  std::map<std::string, int64_t> counts;
  for (const tensor::Parameter* parameter : state_->once_trained) {
    const auto missed = state_->born.find(parameter);
    const auto slept = state_->sleeping.find(parameter);
    if (parameter->trainable) {
      counts[parameter->name] =
          state_->updates_done - (missed == state_->born.end() ? 0 : missed->second);
    } else if (slept != state_->sleeping.end()) {
      counts[parameter->name] = slept->second.updates;
    }
  }
  return counts;
}

void ShardedParameters::set_update_counts(const std::map<std::string, int64_t>& counts,
                                          int64_t updates) {
  State& state = *state_;
  state.updates_done = updates;
  for (UnitStore& store : state.units) {
    for (const tensor::ParameterPtr& parameter : store.unit.parameters) {
      const auto found = counts.find(parameter->name);
      if (found == counts.end()) {
        continue;
      }
      if (parameter->trainable) {
        state.born[parameter.get()] = updates - found->second;
      } else {
        state.sleeping.at(parameter.get()).updates = found->second;
      }
    }
    state.treat(store);
  }
}

void ShardedParameters::reset_state() {
  const at::NoGradGuard no_grad;
  State& state = *state_;
  state.settle();
  state.updates_done = 0;
  state.born.clear();
  state.sleeping.clear();
  state.reset_to_values(kAverage);
  for (UnitStore& store : state.units) {
    for (size_t kind = 0; kind < store.training.moments.size(); ++kind) {
      if (kind < num_rule_kinds(state.config)) {
        store.training.moments[kind].zero_();
      }
    }
    state.treat(store);
  }
  for (const auto& [parameter, tensors] : state.shared) {
    for (const at::Tensor& tensor : tensors) {
      tensor.zero_();
    }
  }
}

/// This rank's pieces of sleeping state; of these the share of this replica.
void ShardedParameters::State::append_sleeping(std::vector<StateSlice>& slices,
                                               int share,
                                               int whole) {
  for (const UnitStore& store : units) {
    for (const tensor::ParameterPtr& parameter : store.unit.parameters) {
      const auto found = sleeping.find(parameter.get());
      if (found == sleeping.end()) {
        continue;
      }
      for (size_t kind = 0; kind < kinds.size(); ++kind) {
        const at::Tensor& piece = found->second.pieces[kind];
        const int64_t numel = blocks_of(parameter->numel(), kinds[kind].block);
        const int64_t begin = std::min(groups.shard.rank() * piece.numel(), numel);
        const int64_t length = std::min(piece.numel(), numel - begin);
        const int64_t lo = length * share / whole;
        const int64_t hi = length * (share + 1) / whole;
        if (lo < hi) {
          slices.push_back({kinds[kind].prefix + parameter->name,
                            kinds[kind].block == 1 ? parameter->shape : std::vector<int64_t>{numel},
                            begin + lo,
                            piece.narrow(0, lo, hi - lo)});
        }
      }
    }
  }
}

}  // namespace kamerton::optim
