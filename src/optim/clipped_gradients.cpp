// SPDX-License-Identifier: Apache-2.0
// Gradients clipped example by example, for the privacy of records.
//
// One example's gradient lies whole on its rank (both uses of a tied unit add up in one buffer), is
// measured over all units, scaled and added to a second buffer; the ranks' sums are reduced once a
// step, as ordinary gradients are.
#include <algorithm>
#include <cmath>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include "kamerton/core/error.h"

#include "device_update.h"
#include "sharded_state.h"

namespace kamerton::optim {

void ShardedParameters::begin_example() {
  const at::NoGradGuard no_grad;
  State& state = *state_;
  state.settle();
  state.prepare_state();
  for (UnitStore& store : state.units) {
    UnitTraining& training = store.training;
    if (!state.in_step && store.trainable.layout.padded > 0) {
      if (training.clipped.numel() == 0) {
        training.clipped = FlatBuffer(store.trainable.layout.padded, at::kFloat, state.device);
      }
      state.fill(training.clipped);
      training.clipped.whole().zero_();
    }
    training.touched = false;
    training.reduced = false;
  }
  state.in_step = true;
  state.by_example = true;
  state.last_micro_batch = false;
  state.backward_expected = true;
  state.travel.begin_training_pass();
}

/// Over the units that this example's backward pass has reached.
double ShardedParameters::State::example_sum_of_squares() {
  double total = 0.0;
  std::vector<at::Tensor> on_device;
  for (UnitStore& store : units) {
    if (!store.training.touched || store.trainable.layout.padded == 0) {
      continue;
    }
    const at::Tensor& whole = store.training.gradients.whole();
    if (device.is_cpu()) {
      total += blocked_sum_of_squares(whole);
    } else {
      on_device.push_back(whole);
    }
  }
  return on_device.empty() ? total : device_sum_of_squares(on_device);
}

double ShardedParameters::add_clipped_example(double max_norm) {
  const at::NoGradGuard no_grad;
  State& state = *state_;
  if (!state.by_example || !(max_norm > 0)) {
    throw core::Error(core::ErrorKind::Internal,
                      {.where = "optim.add_clipped_example",
                       .what = "an example was not announced, or has no bound",
                       .allowed = "begin_example() first, a bound above 0"});
  }
  state.check_stray_gradients();
  const double norm = std::sqrt(state.example_sum_of_squares());
  if (!std::isfinite(norm)) {
    return norm;
  }
  // Rounding of the products must not carry the sum over the bound.
  const double factor = std::min(1.0, max_norm / norm) * (1.0 - 1e-6);
  for (UnitStore& store : state.units) {
    if (store.training.touched && store.trainable.layout.padded > 0 && norm > 0) {
      store.training.clipped.whole().add_(store.training.gradients.whole(), factor);
    }
  }
  return norm;
}

namespace {

/// Each parameter's elements of this rank's part of a unit.
void add_noise_to(const UnitStore& store,
                  int64_t part_begin,
                  const ShardedParameters::AddNoise& add_noise) {
  at::Tensor part = store.training.gradient_part;
  for (const SlotPart& piece :
       parts_within(store.trainable.layout, part_begin, part_begin + part.numel())) {
    at::Tensor values = part.narrow(0, piece.flat - part_begin, piece.length);
    if (values.device().is_cpu()) {
      add_noise(*piece.slot->parameter, piece.begin, values);
    } else {
      at::Tensor host = values.to(at::kCPU);
      add_noise(*piece.slot->parameter, piece.begin, host);
      values.copy_(host);
    }
  }
}

}  // namespace

GradientReport ShardedParameters::finish_clipped(const AddNoise& add_noise,
                                                 double scale,
                                                 double max_norm) {
  const at::NoGradGuard no_grad;
  State& state = *state_;
  state.settle();
  state.in_step = false;
  state.by_example = false;
  for (UnitStore& store : state.units) {
    UnitTraining& training = store.training;
    if (store.trainable.layout.padded == 0) {
      continue;
    }
    if (state.stage >= 2) {
      state.fill(training.gradients);
    } else {
      training.gradients.fill();
    }
    training.gradients.whole().copy_(training.clipped.whole());
    state.drop(training.clipped);
    training.touched = state.stage < 2;
    training.reduced = false;
    state.reduce(store);
    state.reduce_leftovers(store);
    add_noise_to(store, state.part_begin(store.trainable), add_noise);
    training.gradient_part.mul_(scale);
    state.correct(store);  // what is added knows nothing of single records
  }
  return measure(max_norm, true);
}

}  // namespace kamerton::optim
