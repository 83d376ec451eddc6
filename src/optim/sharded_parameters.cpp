// SPDX-License-Identifier: Apache-2.0
// Placement, gathering and release of parameters.
#include "kamerton/optim/sharded_parameters.h"

#include <algorithm>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>

#include "kamerton/core/error.h"

#include "sharded_state.h"

namespace kamerton::optim {

namespace {

void check_dtype(at::ScalarType compute) {
  if (compute != at::kFloat && compute != at::kBFloat16) {
    throw core::Error(core::ErrorKind::Config,
                      {.where = "optim.sharded_parameters",
                       .what = "parameters cannot be trained in this type",
                       .got = c10::toString(compute),
                       .allowed = "float32, or bfloat16 with float32 masters",
                       .hint = {}});
  }
}

UnitValues place(const tensor::ParamUnit& unit,
                 Held held,
                 const comm::Group& shard,
                 int stage,
                 at::TensorOptions options,
                 int64_t alignment) {
  UnitValues values;
  values.layout = lay_out(unit, held, shard.size(), alignment);
  values.whole = FlatBuffer(
      values.layout.padded, c10::typeMetaToScalarType(options.dtype()), options.device());
  if (stage == 3 || values.layout.padded == 0) {
    values.shard = at::zeros({values.layout.shard}, options);
  } else {
    values.whole.fill();
    values.whole.whole().zero_();
    values.shard = values.whole.view(shard.rank() * values.layout.shard, {values.layout.shard});
  }
  for (const auto& slot : values.layout.slots) {
    slot.parameter->value = values.whole.view(slot.offset, slot.parameter->shape);
    slot.parameter->value.set_requires_grad(held == Held::Trainable);
    slot.parameter->gradient.reset();
  }
  return values;
}

UnitTraining prepare_training(const UnitValues& values, at::Device device) {
  UnitTraining training;
  training.gradients = FlatBuffer(values.layout.padded, at::kFloat, device);
  training.late_gradients = FlatBuffer(values.layout.padded, at::kFloat, device);
  for (const auto& slot : values.layout.slots) {
    training.gradient_views.push_back(training.gradients.view(slot.offset, slot.parameter->shape));
  }
  return training;
}

}  // namespace

ShardedParameters::State::State(const ShardGroups& shard_groups,
                                const OptimConfig& optim,
                                at::ScalarType dtype,
                                at::Device where,
                                const std::vector<tensor::ParamUnit>& all_units)
    : groups(shard_groups),
      config(optim),
      compute(dtype),
      device(where),
      stage(shard_groups.shard.size() == 1 ? 0 : static_cast<int>(optim.zero_stage)),
      kinds(state_kinds(config)),
      rule(make_rule(config, where)),
      treatments(config, all_units),
      travel(static_cast<int>(all_units.size())) {
  if (stage == 3) {
    gather_group = groups.shard.split(0, groups.shard.rank(), "gather");
  }
}

/// Memory for a unit, by what is trainable now; its contents are undefined.
void ShardedParameters::State::place_unit(UnitStore& store) {
  const at::TensorOptions options = at::TensorOptions(device).dtype(compute);
  const auto place_held = [&](Held held, at::TensorOptions type, int64_t alignment) {
    return place(store.unit, held, groups.shard, stage, type, alignment);
  };
  store.trainable = place_held(Held::Trainable, options, alignment_of(kinds));
  store.frozen = place_held(Held::Frozen, options, 1);
  store.packed = place_held(Held::Packed, options.dtype(at::kByte), 1);
  store.training = prepare_training(store.trainable, device);
  treat(store);
  if (master_apart()) {
    store.training.master = at::zeros({part_length(store.trainable)}, wide());
  }
}

/// How each element of the unit is updated.
void ShardedParameters::State::treat(UnitStore& store) {
  store.training.segments =
      segments_of(store.trainable.layout, [&](const tensor::Parameter& parameter) {
        Treatment treatment = treatments.of(store.unit, parameter);
        const auto found = born.find(&parameter);
        treatment.born = found == born.end() ? 0 : found->second;
        return treatment;
      });
}

void ShardedParameters::State::index_places() {
  places.clear();
  for (size_t i = 0; i < units.size(); ++i) {
    for (const UnitValues* values : std::as_const(units[i]).values()) {
      for (const FlatSlot& slot : values->layout.slots) {
        if (!places.try_emplace(slot.parameter.get(), i, &slot).second) {
          throw core::Error(core::ErrorKind::Internal,
                            {.where = "optim.sharded_parameters",
                             .what = "a parameter belongs to two units",
                             .got = "'" + slot.parameter->name + "'",
                             .allowed = "one unit, used as often as needed",
                             .hint = {}});
        }
      }
    }
  }
}

int64_t ShardedParameters::State::part_begin(const UnitValues& values) const {
  return stage == 0 ? 0 : groups.shard.rank() * values.layout.shard;
}

int64_t ShardedParameters::State::part_length(const UnitValues& values) const {
  return stage == 0 ? values.layout.padded : values.layout.shard;
}

at::Tensor ShardedParameters::State::master_part(UnitStore& store) const {
  if (master_apart()) {
    return store.training.master;
  }
  return stage == 0 ? store.trainable.whole.whole() : store.trainable.shard;
}

at::Tensor ShardedParameters::State::shard_of_part(const at::Tensor& part,
                                                   const UnitValues& values,
                                                   int64_t block) const {
  const int64_t begin = groups.shard.rank() * values.layout.shard - part_begin(values);
  return part.narrow(0, begin / block, values.layout.shard / block);
}

void ShardedParameters::State::fill(FlatBuffer& buffer) {
  if (!buffer.filled() && buffer.numel() > 0) {
    buffer.fill();
    transient += buffer.bytes();
    transient_peak = std::max(transient_peak, transient);
  }
}

void ShardedParameters::State::drop(FlatBuffer& buffer) {
  if (buffer.filled()) {
    buffer.drop();
    transient -= buffer.bytes();
  }
}

void ShardedParameters::State::launch_gather(UnitStore& store) {
  if (store.gathered) {
    return;
  }
  for (UnitValues* values : store.values()) {
    if (values->layout.padded > 0) {
      fill(values->whole);
      at::Tensor whole = values->whole.whole();
      values->arrival = gather_group.all_gather_async(values->shard, whole);
    }
  }
  store.gathered = true;
}

void ShardedParameters::State::finish_gather(UnitStore& store) {
  for (UnitValues* values : store.values()) {
    values->arrival.wait();
  }
}

void ShardedParameters::State::release(UnitStore& store) {
  if (!store.gathered) {
    return;
  }
  finish_gather(store);
  for (UnitValues* values : store.values()) {
    drop(values->whole);
  }
  store.gathered = false;
}

/// Whatever is neither in use nor expected goes first, so that no more than the units in use and
/// the next one are whole.
void ShardedParameters::State::use(int unit, int next) {
  for (UnitStore& store : units) {
    const int index = static_cast<int>(&store - units.data());
    if (store.gathered && store.users == 0 && index != unit && index != next) {
      release(store);
    }
  }
  UnitStore& store = units[static_cast<size_t>(unit)];
  ++store.users;
  launch_gather(store);
  if (next >= 0) {
    launch_gather(units[static_cast<size_t>(next)]);
  }
  finish_gather(store);
}

/// Releases everything: before the shards change, and when a pass ended early.
void ShardedParameters::State::settle() {
  backward_expected = false;
  if (stage == 3) {
    for (UnitStore& store : units) {
      if (store.users == 0) {
        release(store);
      }
    }
  }
}

ShardedParameters::ShardedParameters(const std::vector<tensor::ParamUnit>& units,
                                     const ShardGroups& groups,
                                     const OptimConfig& config,
                                     at::ScalarType compute,
                                     at::Device device) {
  validate(config);
  check_dtype(compute);
  const at::NoGradGuard no_grad;
  state_ = std::make_unique<State>(groups, config, compute, device, units);
  state_->units.resize(units.size());
  for (size_t i = 0; i < units.size(); ++i) {
    state_->units[i].unit = units[i];
    state_->place_unit(state_->units[i]);
  }
  state_->index_places();
}

ShardedParameters::~ShardedParameters() = default;

void ShardedParameters::before_forward(int unit) {
  const at::NoGradGuard no_grad;
  const int next = state_->travel.forward(unit);
  if (state_->stage == 3) {
    state_->use(unit, next);
  }
}

void ShardedParameters::after_forward(int unit) {
  UnitStore& store = state_->units[static_cast<size_t>(unit)];
  // The unit that ends a forward pass begins the backward pass: it stays.
  const bool stays = state_->backward_expected && state_->travel.forward_ended();
  if (state_->stage == 3 && --store.users == 0 && !stays) {
    state_->release(store);
  }
}

void ShardedParameters::before_backward(int unit) {
  const at::NoGradGuard no_grad;
  if (!state_->in_step) {
    throw core::Error(core::ErrorKind::Internal,
                      {.where = "optim.before_backward",
                       .what = "a backward pass was not announced",
                       .got = "unit '" + state_->units[static_cast<size_t>(unit)].unit.name + "'",
                       .allowed = "begin_micro_batch() first",
                       .hint = {}});
  }
  const int next = state_->travel.backward(unit);
  state_->backward_expected = false;
  if (state_->stage == 3) {
    state_->use(unit, next);
  }
  state_->expose_gradients(state_->units[static_cast<size_t>(unit)]);
}

void ShardedParameters::after_backward(int unit) {
  const at::NoGradGuard no_grad;
  UnitStore& store = state_->units[static_cast<size_t>(unit)];
  state_->hide_gradients(store);
  if (state_->stage == 3 && --store.users == 0) {
    state_->release(store);
  }
  if (state_->squaring != State::Squaring::Off) {
    const bool learning = state_->squaring == State::Squaring::Learning;
    if (++store.training.uses == state_->travel.backward_uses(unit) || learning) {
      state_->square(store);
    }
  } else if (!state_->by_example && (state_->stage >= 2 || state_->last_micro_batch)) {
    state_->reduce(store);
  }
}

ShardedBytes ShardedParameters::bytes() const {
  ShardedBytes total;
  const auto size_of = [](const at::Tensor& tensor) {
    return tensor.defined() ? static_cast<int64_t>(tensor.nbytes()) : 0;
  };
  for (const UnitStore& store : state_->units) {
    int64_t whole = 0;
    for (const UnitValues* values : store.values()) {
      total.parameters += state_->stage == 3 ? size_of(values->shard) : values->whole.bytes();
      whole += values->whole.bytes();
    }
    const UnitTraining& training = store.training;
    if (state_->stage < 2) {
      total.gradients += training.gradients.filled() ? training.gradients.bytes() : 0;
    } else {
      total.gradients += size_of(training.gradient_part);
    }
    total.optimizer_state += size_of(training.master);
    for (const at::Tensor& moment : training.moments) {
      total.optimizer_state += size_of(moment);
    }
    total.largest_unit_parameters = std::max(total.largest_unit_parameters, whole);
    total.largest_unit_gradients =
        std::max(total.largest_unit_gradients, training.gradients.bytes());
  }
  for (const auto& [parameter, state] : state_->sleeping) {
    for (const at::Tensor& piece : state.pieces) {
      total.optimizer_state += size_of(piece);
    }
  }
  for (const auto& [parameter, tensors] : state_->shared) {
    for (const at::Tensor& tensor : tensors) {
      total.optimizer_state += size_of(tensor);
    }
  }
  total.reduced_per_step = state_->reduced;
  total.transient = state_->transient;
  total.transient_peak = state_->transient_peak;
  return total;
}

int ShardedParameters::stage() const {
  return state_->stage;
}

}  // namespace kamerton::optim
