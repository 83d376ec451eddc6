// SPDX-License-Identifier: Apache-2.0
#include "kamerton/optim/rank_budget.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <ATen/ATen.h>

#include "sharded_state.h"

namespace kamerton::optim {

int64_t RankBudget::all_triplets() const {
  int64_t sum = 0;
  for (const Triplets& matrix : matrices) {
    sum += matrix.rank();
  }
  return sum;
}

std::optional<int64_t> RankBudget::triplets_after(int64_t step) const {
  const auto target = target_rank * static_cast<int64_t>(matrices.size());
  const int64_t last = total_steps - last_steps;
  if (step >= last) {
    return target;
  }
  if (step <= first_steps || step % interval != 0) {
    return std::nullopt;
  }
  const double left =
      1.0 - static_cast<double>(step - first_steps) / static_cast<double>(last - first_steps);
  const auto over = static_cast<double>(all_triplets() - target);
  return static_cast<int64_t>(over * left * left * left + static_cast<double>(target));
}

double pruning_threshold(std::vector<double> scores, int64_t kept) {
  const int64_t pruned = static_cast<int64_t>(scores.size()) - kept;
  if (pruned <= 0) {
    return -std::numeric_limits<double>::infinity();
  }
  const auto last = scores.begin() + (std::min<int64_t>(pruned, std::ssize(scores)) - 1);
  std::nth_element(scores.begin(), last, scores.end());
  return *last;
}

/// Adds the gradient of the penalty. Returns this rank's part of its value: of the matrices that
/// begin in its shard.
double ShardedParameters::State::add_orthogonality() {
  if (!budget.has_value() || budget->matrices.empty() || budget->orthogonality == 0.0) {
    return 0.0;
  }
  const double weight =
      budget->orthogonality / (2.0 * static_cast<double>(budget->matrices.size()));
  at::Tensor penalty = at::zeros({}, wide().dtype(at::kDouble));
  const UnitStore* gathered = nullptr;
  at::Tensor whole;
  const auto add = [&](UnitStore& store, const FlatSlot& slot, bool rows) {
    const int64_t begin = part_begin(store.trainable);
    const SlotPart piece = within(slot, begin, part_length(store.trainable));
    if (piece.length == 0) {
      return;
    }
    const at::Tensor values = whole.narrow(0, slot.offset, slot.numel).view(slot.parameter->shape);
    const at::Tensor wide = rows ? values : values.t();  // rows that shall be orthonormal
    const at::Tensor excess = at::mm(wide, wide.t()) - at::eye(wide.size(0), wide.options());
    const at::Tensor norm = excess.norm();
    const at::Tensor pull =
        at::mm(excess, wide) * (2.0 * weight / norm.clamp_min(std::numeric_limits<float>::min()));
    store.training.gradient_part.narrow(0, piece.flat - begin, piece.length)
        .add_((rows ? pull : pull.t()).reshape({-1}).narrow(0, piece.begin, piece.length));
    const int64_t own = groups.shard.rank() * store.trainable.layout.shard;
    if (slot.offset >= own && slot.offset < own + store.trainable.layout.shard) {
      penalty.add_(norm, weight);
    }
  };
  for (const Triplets& matrix : budget->matrices) {
    const auto [index, a] = places.at(matrix.a.get());
    UnitStore& store = units[index];
    if (gathered != &store) {  // matrices of a unit follow each other: one gather a unit
      gathered = &store;
      whole = stage < 3 && !master_apart() ? store.trainable.whole.whole()
                                           : gather_part(master_part(store), store.trainable);
    }
    add(store, *a, true);
    add(store, *places.at(matrix.b.get()).second, false);
  }
  return penalty.item<double>();
}

/// By unit: an update uses its gradients up.
std::vector<at::Tensor> ShardedParameters::State::copies_of_gradients() const {
  std::vector<at::Tensor> copies;
  for (const UnitStore& store : units) {
    const bool trained = store.trainable.layout.padded > 0;
    copies.push_back(trained ? store.training.gradient_part.clone() : at::Tensor());
  }
  return copies;
}

/// Smooths each element's sensitivity |weight * gradient| and how uncertain it is. `gradients`:
/// copies_of_gradients() before the update.
void ShardedParameters::State::learn_sensitivity(const std::vector<at::Tensor>& gradients) {
  for (size_t i = 0; i < units.size(); ++i) {
    UnitStore& store = units[i];
    at::Tensor sensitivity = state_part(store, kSensitivity);
    if (!sensitivity.defined() || sensitivity.numel() == 0) {
      continue;
    }
    const at::Tensor now = (master_part(store) * gradients[i]).abs_().mul_(clip_factor);
    sensitivity.mul_(budget->beta1).add_(now, 1.0 - budget->beta1);
    state_part(store, kUncertainty)
        .mul_(budget->beta2)
        .add_((now - sensitivity).abs_(), 1.0 - budget->beta2);
  }
}

/// Of every triplet of every matrix in order: an element of e matters by itself, a row of A and a
/// column of B by their means.
at::Tensor ShardedParameters::State::triplet_scores() {
  at::Tensor scores = at::zeros({budget->all_triplets()}, wide().dtype(at::kDouble));
  int64_t first = 0;
  for (const Triplets& matrix : budget->matrices) {
    at::Tensor of_matrix = scores.narrow(0, first, matrix.rank());
    first += matrix.rank();
    for (const tensor::ParameterPtr& parameter : {matrix.a, matrix.b, matrix.e}) {
      const auto [index, slot] = places.at(parameter.get());
      UnitStore& store = units[index];
      const int64_t begin = groups.shard.rank() * store.trainable.layout.shard;
      const SlotPart piece = within(*slot, begin, store.trainable.layout.shard);
      if (piece.length == 0) {
        continue;
      }
      const auto mine = [&](const char* kind) {
        return shard_of_part(state_part(store, kind), store.trainable)
            .narrow(0, piece.flat - begin, piece.length);
      };
      at::Tensor elements = at::zeros({slot->numel}, scores.options());
      elements.narrow(0, piece.begin, piece.length).copy_(mine(kSensitivity) * mine(kUncertainty));
      of_matrix.add_(elements.view(parameter->shape).mean(parameter == matrix.b ? 0 : 1));
    }
  }
  if (groups.shard.size() > 1) {
    groups.shard.all_reduce(scores);
  }
  return scores.to(at::kCPU);
}

/// Elements of e whose triplets matter least become 0; they may grow again until the last pruning.
void ShardedParameters::State::prune_triplets(int64_t kept) {
  const at::Tensor scores = triplet_scores();
  const double* data = scores.const_data_ptr<double>();
  const double threshold = pruning_threshold({data, data + scores.numel()}, kept);
  if (!(scores.max().item<double>() > threshold)) {
    return;  // nothing is known of them yet, as in a run of one step
  }
  const at::Tensor pruned = scores.le(threshold);
  triplets_left = scores.numel() - pruned.sum().item<int64_t>();
  int64_t first = 0;
  for (const Triplets& matrix : budget->matrices) {
    const auto [index, slot] = places.at(matrix.e.get());
    UnitStore& store = units[index];
    const at::Tensor mask = pruned.narrow(0, first, matrix.rank()).to(device);
    first += matrix.rank();
    const int64_t begin = part_begin(store.trainable);
    const SlotPart piece = within(*slot, begin, part_length(store.trainable));
    const auto clear = [&](const at::Tensor& part) {
      part.narrow(0, piece.flat - begin, piece.length)
          .masked_fill_(mask.narrow(0, piece.begin, piece.length), 0.0);
    };
    if (piece.length > 0) {
      clear(master_part(store));
      clear(stage == 0 ? store.trainable.whole.whole() : store.trainable.shard);
    }
  }
}

void ShardedParameters::set_rank_budget(RankBudget budget) {
  state_->triplets_left = budget.all_triplets();
  state_->budget = std::move(budget);
}

std::optional<int64_t> ShardedParameters::triplets_left() const {
  return state_->budget.has_value() ? std::optional(state_->triplets_left) : std::nullopt;
}

}  // namespace kamerton::optim
