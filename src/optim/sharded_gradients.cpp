// SPDX-License-Identifier: Apache-2.0
// Gradients: where they land, when and in which order they are summed, their norm.
//
// Order of summation, the same at all stages: ranks of the shard group in rank order, per use of a
// unit; then uses; then the replicas in rank order. Stages 2 and 3 add micro-batches after the
// first of these sums, 0 and 1 before it.
#include <cmath>
#include <limits>

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "kamerton/core/error.h"

#include "device_update.h"
#include "sharded_state.h"
#include "update_kernels.h"

namespace kamerton::optim {

namespace {

/// Elements per partial sum of the norm: its bits do not depend on the number of threads.
constexpr int64_t kNormBlock = 16384;

[[noreturn]] void throw_stray_gradient(const std::string& name) {
  throw core::Error(core::ErrorKind::Internal,
                    {.where = "optim.finish_gradients",
                     .what = "a gradient arrived outside of its unit's bracket and would be lost",
                     .got = "'" + name + "'",
                     .allowed = "every use of a parameter inside tensor::run_unit of its unit",
                     .hint = {}});
}

}  // namespace

double blocked_sum_of_squares(const at::Tensor& values) {
  const float* data = values.const_data_ptr<float>();
  const int64_t n = values.numel();
  const int64_t blocks = (n + kNormBlock - 1) / kNormBlock;
  std::vector<double> partial(static_cast<size_t>(blocks));
  at::parallel_for(0, blocks, 4, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t offset = block * kNormBlock;
      partial[static_cast<size_t>(block)] =
          sum_of_squares(data + offset, std::min(kNormBlock, n - offset));
    }
  });
  double total = 0.0;
  for (const double sum : partial) {
    total += sum;
  }
  return total;
}

void ShardedParameters::begin_micro_batch(bool last) {
  const at::NoGradGuard no_grad;
  state_->settle();
  // Before the first activations: what stays must not take the blocks that they will want again.
  state_->prepare_state();
  if (!state_->in_step) {
    state_->reduced = 0;
    for (UnitStore& store : state_->units) {
      if (state_->stage < 2) {
        store.training.gradients.fill();
      }
      store.training.touched = false;
      store.training.reduced = false;
    }
  }
  state_->in_step = true;
  state_->last_micro_batch = last;
  state_->backward_expected = true;
  state_->travel.begin_training_pass();
}

void ShardedParameters::State::expose_gradients(UnitStore& store) {
  UnitTraining& training = store.training;
  if (store.trainable.layout.padded == 0) {
    return;
  }
  const bool late = training.reduced;
  if (late) {
    fill(training.late_gradients);
    training.late_gradients.whole().zero_();
  } else {
    if (stage >= 2) {
      fill(training.gradients);
    } else {
      training.gradients.fill();
    }
    if (!keeps_whole() || !training.touched) {
      training.gradients.whole().zero_();
    }
  }
  const auto& slots = store.trainable.layout.slots;
  for (size_t i = 0; i < slots.size(); ++i) {
    tensor::Parameter& parameter = *slots[i].parameter;
    parameter.gradient = late ? training.late_gradients.view(slots[i].offset, parameter.shape)
                              : training.gradient_views[i];
    parameter.value.mutable_grad() = parameter.gradient;
  }
}

void ShardedParameters::State::hide_gradients(UnitStore& store) {
  for (const FlatSlot& slot : store.trainable.layout.slots) {
    slot.parameter->gradient.reset();
    slot.parameter->value.mutable_grad().reset();
  }
  store.training.touched = store.training.touched || keeps_whole();
}

void ShardedParameters::State::reduce(UnitStore& store) {
  UnitTraining& training = store.training;
  if (store.trainable.layout.padded == 0) {
    return;
  }
  FlatBuffer& source = training.reduced ? training.late_gradients : training.gradients;
  const bool first = stage >= 2 ? !training.touched : !training.reduced;
  at::Tensor whole = source.whole();
  reduced += groups.shard.size() > 1 ? source.bytes() : 0;
  if (stage == 0) {
    groups.shard.all_reduce(whole);
    if (first) {
      training.gradient_part = whole;
    } else {
      training.gradient_part.add_(whole);
    }
  } else {
    if (!training.gradient_part.defined()) {
      const int64_t length = store.trainable.layout.shard;
      training.gradient_part = stage == 1 ? whole.narrow(0, part_begin(store.trainable), length)
                                          : at::empty({length}, wide());
    }
    if (stage >= 2 && first) {
      groups.shard.reduce_scatter(whole, training.gradient_part);
    } else {
      at::Tensor sum = at::empty({store.trainable.layout.shard}, wide());
      groups.shard.reduce_scatter(whole, sum);
      first ? training.gradient_part.copy_(sum) : training.gradient_part.add_(sum);
    }
  }
  if (&source == &training.late_gradients || stage >= 2) {
    drop(source);
  }
  training.touched = true;
  training.reduced = stage < 2;
}

/// A unit that no backward pass of the last micro-batch used.
void ShardedParameters::State::reduce_leftovers(UnitStore& store) {
  UnitTraining& training = store.training;
  if (store.trainable.layout.padded == 0) {
    return;
  }
  if (stage < 2 && !training.reduced) {
    training.gradients.fill();
    if (!training.touched) {
      training.gradients.whole().zero_();
    }
    reduce(store);
  } else if (stage >= 2 && !training.touched) {
    training.gradient_part = at::zeros({store.trainable.layout.shard}, wide());
  }
  if (groups.replicate.size() > 1) {
    groups.replicate.all_reduce(training.gradient_part);
  }
}

void ShardedParameters::State::correct(UnitStore& store) {
  if (!correction || store.trainable.layout.padded == 0) {
    return;
  }
  const int64_t begin = part_begin(store.trainable);
  const at::Tensor values = master_part(store);
  for (const SlotPart& piece :
       parts_within(store.trainable.layout, begin, begin + part_length(store.trainable))) {
    correction(*piece.slot->parameter,
               piece.begin,
               values.narrow(0, piece.flat - begin, piece.length),
               store.training.gradient_part.narrow(0, piece.flat - begin, piece.length));
  }
}

void ShardedParameters::set_correction(Correction correction) {
  state_->correction = std::move(correction);
}

double ShardedParameters::State::local_sum_of_squares() {
  if (!device.is_cpu()) {
    std::vector<at::Tensor> parts;
    for (UnitStore& store : units) {
      if (store.trainable.layout.padded > 0) {
        parts.push_back(shard_of_part(store.training.gradient_part, store.trainable));
      }
    }
    return device_sum_of_squares(parts);
  }
  double total = 0.0;
  for (UnitStore& store : units) {
    if (store.trainable.layout.padded > 0) {
      total += blocked_sum_of_squares(shard_of_part(store.training.gradient_part, store.trainable));
    }
  }
  return total;
}

void ShardedParameters::State::check_stray_gradients() {
  for (const UnitStore& store : units) {
    for (const FlatSlot& slot : store.trainable.layout.slots) {
      if (slot.parameter->value.grad().defined()) {
        throw_stray_gradient(slot.parameter->name);
      }
    }
  }
}

GradientReport ShardedParameters::finish_gradients(double max_norm, bool local_finite) {
  const at::NoGradGuard no_grad;
  state_->settle();
  state_->in_step = false;
  state_->check_stray_gradients();
  for (UnitStore& store : state_->units) {
    state_->reduce_leftovers(store);
    state_->correct(store);
  }
  return measure(max_norm, local_finite);
}

/// Adds what does not come from data. The norm of all, and what to do about it.
GradientReport ShardedParameters::measure(double max_norm, bool local_finite) {
  const double penalty = state_->add_penalties();
  const double orthogonality = state_->add_orthogonality();
  // Replicas hold the same gradients; only the callers' flags differ between them.
  const double local =
      local_finite ? state_->local_sum_of_squares() : std::numeric_limits<double>::quiet_NaN();
  double sum = state_->groups.shard.sum(local);
  if (state_->groups.replicate.size() > 1 && state_->groups.replicate.any(!std::isfinite(sum))) {
    sum = std::numeric_limits<double>::quiet_NaN();
  }
  GradientReport report;
  if (state_->config.l2 > 0.0 || state_->config.ewc > 0.0) {
    report.penalty = state_->groups.shard.sum(penalty);
  }
  if (state_->budget.has_value()) {
    report.orthogonality = state_->groups.shard.sum(orthogonality);
  }
  report.norm = std::sqrt(sum);
  report.finite = std::isfinite(report.norm);
  if (report.finite && max_norm > 0.0) {
    report.clip_factor = std::min(1.0, max_norm / (report.norm + 1e-6));
  }
  state_->clip_factor = report.clip_factor;
  return report;
}

}  // namespace kamerton::optim
