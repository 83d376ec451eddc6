// SPDX-License-Identifier: Apache-2.0
// Loading, checkpoint slices, export: everything that names parts of the flat buffers.
#include "sharded_state.h"

#include <algorithm>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include "kamerton/core/error.h"

namespace kamerton::optim {

namespace {

/// A named part's values for a piece of a parameter. With blocks, those that begin in the piece:
/// parts and parameters begin at blocks.
StateSlice slice_of(const NamedPart& named,
                    const tensor::Parameter& parameter,
                    const SlotPart& piece) {
  if (named.block == 1) {
    return {named.prefix + parameter.name,
            parameter.shape,
            piece.begin,
            named.part.narrow(0, piece.flat - named.begin, piece.length)};
  }
  const auto blocks = [&named](int64_t elements) {
    return (elements + named.block - 1) / named.block;
  };
  const int64_t first = blocks(piece.begin);
  const int64_t last = blocks(piece.begin + piece.length);
  return {named.prefix + parameter.name,
          {blocks(parameter.numel())},
          first,
          named.part.narrow(0, blocks(piece.flat - named.begin), last - first)};
}

/// Slices of every named part over [begin, end) of the flat buffer, of parameters that `wanted`
/// holds for.
void append_slices(std::vector<StateSlice>& slices,
                   const FlatLayout& layout,
                   const std::vector<NamedPart>& parts,
                   int64_t begin,
                   int64_t end,
                   const std::function<bool(const tensor::Parameter&)>& wanted) {
  for (const SlotPart& piece : parts_within(layout, begin, end)) {
    const tensor::Parameter& parameter = *piece.slot->parameter;
    if (!wanted(parameter)) {
      continue;
    }
    for (const NamedPart& named : parts) {
      slices.push_back(slice_of(named, parameter, piece));
    }
  }
}

/// Asks for the parameters' elements in this rank's shard; `target` is that shard.
void fill_shard(const FlatLayout& layout,
                int64_t shard_begin,
                const at::Tensor& target,
                const ShardedParameters::Fill& fill) {
  for (const SlotPart& piece : parts_within(layout, shard_begin, shard_begin + layout.shard)) {
    fill(*piece.slot->parameter,
         piece.begin,
         target.narrow(0, piece.flat - shard_begin, piece.length));
  }
}

}  // namespace

std::vector<NamedPart> ShardedParameters::State::named_parts(UnitStore& store) const {
  const int64_t begin = part_begin(store.trainable);
  std::vector<NamedPart> parts{{"model.", master_part(store), begin, 1}};
  for (size_t kind = 0; kind < store.training.moments.size(); ++kind) {
    if (store.training.moments[kind].numel() > 0) {
      parts.push_back({kinds[kind].prefix, store.training.moments[kind], begin, kinds[kind].block});
    }
  }
  return parts;
}

bool ShardedParameters::State::is_saved(const tensor::Parameter& parameter,
                                        bool include_frozen) const {
  return parameter.trainable || include_frozen || once_trained.contains(&parameter);
}

/// Slices of [shard begin + lo, shard begin + hi), lo and hi given as share / whole of the shard.
std::vector<StateSlice> ShardedParameters::State::slices(bool include_frozen,
                                                         int share,
                                                         int whole) {
  prepare_state();
  const int64_t alignment = alignment_of(kinds);
  const auto cut = [alignment](int64_t length, int64_t piece, int64_t pieces) {
    return piece == pieces ? length : length / alignment * piece / pieces * alignment;
  };
  std::vector<StateSlice> result;
  for (UnitStore& store : units) {
    for (UnitValues* values : {&store.trainable, &store.frozen}) {
      if (values->layout.padded == 0) {
        continue;
      }
      const int64_t length = values->layout.shard;
      const int64_t base = groups.shard.rank() * length;
      const auto parts = values == &store.trainable
                             ? named_parts(store)
                             : std::vector<NamedPart>{{"model.", values->shard, base, 1}};
      append_slices(result,
                    values->layout,
                    parts,
                    base + cut(length, share, whole),
                    base + cut(length, share + 1, whole),
                    [&](const tensor::Parameter& p) { return is_saved(p, include_frozen); });
    }
  }
  append_sleeping(result, share, whole);
  return result;
}

/// What every rank holds alike, in the order of the units.
void ShardedParameters::State::append_shared(std::vector<StateSlice>& slices) const {
  for (const UnitStore& store : units) {
    for (const FlatSlot& slot : store.trainable.layout.slots) {
      const std::vector<SharedKind> of_it = shared_kinds(config, *slot.parameter);
      for (size_t i = 0; i < of_it.size(); ++i) {
        slices.push_back({of_it[i].prefix + slot.parameter->name,
                          of_it[i].shape,
                          0,
                          shared.at(slot.parameter.get())[i].view({-1})});
      }
    }
  }
}

/// Own shards become whole values, where they are kept whole.
void ShardedParameters::State::share_values(UnitValues& values) {
  if (stage < 3 && groups.shard.size() > 1 && values.layout.padded > 0) {
    at::Tensor whole = values.whole.whole();
    groups.shard.all_gather(values.shard, whole);
  }
}

/// The same for a part of the state, kept whole in stage 0.
void ShardedParameters::State::share_part(const at::Tensor& part,
                                          const UnitValues& values,
                                          int64_t block) {
  if (part.numel() > 0 && stage == 0 && groups.shard.size() > 1 && values.layout.padded > 0) {
    at::Tensor whole = part;
    groups.shard.all_gather(shard_of_part(part, values, block), whole);
  }
}

void ShardedParameters::load(const Fill& fill) {
  const at::NoGradGuard no_grad;
  State& state = *state_;
  state.settle();
  for (UnitStore& store : state.units) {
    const int rank = state.groups.shard.rank();
    const at::Tensor master = state.shard_of_part(state.master_part(store), store.trainable);
    fill_shard(store.trainable.layout, rank * store.trainable.layout.shard, master, fill);
    for (const UnitValues* values : {&store.frozen, &store.packed}) {
      fill_shard(values->layout, rank * values->layout.shard, values->shard, fill);
    }
  }
  after_load(true);
}

std::vector<StateSlice> ShardedParameters::owned_slices(bool include_frozen) {
  const comm::Group& replicate = state_->groups.replicate;
  auto slices = state_->slices(include_frozen, replicate.rank(), replicate.size());
  if (replicate.rank() == 0 && state_->groups.shard.rank() == 0) {
    state_->append_shared(slices);
  }
  return slices;
}

std::vector<StateSlice> ShardedParameters::slices_to_load(bool include_frozen) {
  state_->settle();
  auto slices = state_->slices(include_frozen, 0, 1);
  state_->append_shared(slices);
  return slices;
}

void ShardedParameters::after_load(bool include_frozen) {
  const at::NoGradGuard no_grad;
  State& state = *state_;
  for (UnitStore& store : state.units) {
    if (state.master_apart()) {
      state.share_part(store.training.master, store.trainable);
      if (store.trainable.layout.padded > 0) {
        store.trainable.shard.copy_(state.shard_of_part(store.training.master, store.trainable));
      }
    }
    for (size_t kind = 0; kind < store.training.moments.size(); ++kind) {
      state.share_part(store.training.moments[kind], store.trainable, state.kinds[kind].block);
    }
    state.share_values(store.trainable);
    if (include_frozen || !state.once_trained.empty()) {
      state.share_values(store.frozen);
      state.share_values(store.packed);
    }
  }
}

/// The whole of one parameter: copied where it is whole, else each rank gives its piece.
at::Tensor ShardedParameters::State::assemble(UnitStore& store, const FlatSlot& slot) const {
  const bool trainable = slot.parameter->trainable;
  const bool by_master = trainable && master_apart();
  const UnitValues& values = trainable                ? store.trainable
                             : slot.parameter->packed ? store.packed
                                                      : store.frozen;
  const auto& shape = slot.parameter->shape;
  if (stage == 0 || (stage < 3 && !by_master)) {
    const at::Tensor& whole = by_master ? store.training.master : values.whole.whole();
    return whole.narrow(0, slot.offset, slot.numel).clone().view(shape);
  }
  const at::Tensor& mine = by_master ? store.training.master : values.shard;
  const int64_t shard = values.layout.shard;
  at::Tensor out = at::empty({slot.numel}, mine.options());
  for (int rank = 0; rank < groups.shard.size(); ++rank) {
    const int64_t lo = std::max(slot.offset, rank * shard);
    const int64_t hi = std::min(slot.offset + slot.numel, (rank + 1) * shard);
    if (lo >= hi) {
      continue;
    }
    at::Tensor piece = out.narrow(0, lo - slot.offset, hi - lo);
    if (rank == groups.shard.rank()) {
      piece.copy_(mine.narrow(0, lo - rank * shard, hi - lo));
    }
    groups.shard.broadcast(piece, rank);
  }
  return out.view(shape);
}

at::Tensor ShardedParameters::fetch(const tensor::Parameter& parameter) {
  const at::NoGradGuard no_grad;
  State& state = *state_;
  const auto place = state.places.find(&parameter);
  if (place == state.places.end()) {
    throw core::Error(core::ErrorKind::Internal,
                      {.where = "optim.fetch",
                       .what = "this parameter is not managed here",
                       .got = "'" + parameter.name + "'",
                       .allowed = "a parameter of the units given at construction",
                       .hint = {}});
  }
  return state.assemble(state.units[place->second.first], *place->second.second);
}

}  // namespace kamerton::optim
