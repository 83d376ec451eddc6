// SPDX-License-Identifier: Apache-2.0
// Memory by part. Parameters, gradients and state follow from the same layouts that
// ShardedParameters uses; activations from what the kernels of `tensor` save; the process itself
// from a measurement.
#include "kamerton/optim/memory_plan.h"

#include <algorithm>

#include <fmt/format.h>

#include "flat_layout.h"
#include "update_rule.h"

namespace kamerton::optim {

namespace {

/// Resident size of a process that trains a model of no size: MPI, libtorch, data (measured: 172
/// MiB at 1, 2, 4 ranks).
constexpr int64_t kBaseBytes = int64_t{172} << 20;
/// What tensor::token_loss allows a chunk of fp32 logits, and the rows it keeps to.
constexpr int64_t kLogitBytes = int64_t{48} << 20;
constexpr int64_t kMinChunkRows = 32;
constexpr int64_t kMaxChunkRows = 1024;

/// One moment of a step: the parts that differ between moments.
struct Moment {
  int64_t activations = 0;
  int64_t head = 0;
  int64_t transient = 0;
  int64_t total() const { return activations + head + transient; }
};

struct UnitSize {
  int64_t values = 0;     ///< whole, compute dtype, bytes
  int64_t gradients = 0;  ///< whole, fp32, bytes
};

int stage_of(const PlanRequest& request) {
  return request.shard == 1 ? 0 : static_cast<int>(request.optim.zero_stage);
}

std::vector<UnitSize> unit_sizes(const PlanRequest& request) {
  std::vector<UnitSize> sizes;
  const int64_t alignment = alignment_of(state_kinds(request.optim));
  for (const auto& unit : request.units) {
    const int64_t trainable = lay_out(unit, Held::Trainable, request.shard, alignment).padded;
    const int64_t frozen = lay_out(unit, Held::Frozen, request.shard).padded;
    const int64_t packed = lay_out(unit, Held::Packed, request.shard).padded;
    sizes.push_back({(trainable + frozen) * request.compute_bytes + packed, trainable * 4});
  }
  return sizes;
}

void add_persistent(const PlanRequest& request,
                    const std::vector<UnitSize>& sizes,
                    MemoryPlan& plan) {
  const int stage = stage_of(request);
  const int64_t master = request.compute_bytes == 4 ? 0 : 1;
  const std::vector<StateKind> kinds = state_kinds(request.optim);
  for (size_t unit = 0; unit < sizes.size(); ++unit) {
    const UnitSize& size = sizes[unit];
    plan.parameters += stage == 3 ? size.values / request.shard : size.values;
    const int64_t part = stage == 0 ? size.gradients : size.gradients / request.shard;
    plan.optimizer_state += part * master;
    if (request.training) {
      plan.gradients += stage < 2 ? size.gradients : size.gradients / request.shard;
      plan.optimizer_state += state_bytes(kinds, request.units[unit], part / 4);
    }
  }
  plan.optimizer_state +=
      state_bytes(kinds, request.units.back(), request.sleeping / request.shard);
  for (const auto& unit : request.units) {
    for (const auto& parameter : unit.parameters) {
      const bool counts = request.training && parameter->trainable;
      plan.optimizer_state += counts ? shared_bytes(request.optim, *parameter) : 0;
    }
  }
}

/// Stages 2 and 3 reduce each micro-batch, a tied embedding's gradient once for each of its two
/// uses.
int64_t reduced_bytes(const PlanRequest& request, const std::vector<UnitSize>& sizes) {
  if (request.shard == 1 || !request.training) {
    return 0;
  }
  const bool tied = request.units.back().name != "head";
  int64_t bytes = tied ? sizes.front().gradients : 0;
  for (const UnitSize& size : sizes) {
    bytes += size.gradients;
  }
  return stage_of(request) >= 2 ? bytes * request.micro_batches : bytes;
}

/// Saved by a block for its backward, a token: input, two normalised copies and the middle sum;
/// queries, keys, values, attention's output; gate, up and their product; what adapters project
/// down to; log-sums and row norms in fp32.
int64_t saved_per_token(const ActivationShape& shape, int64_t width) {
  const int64_t attention = (shape.qk_norm ? 3 : 2) * (shape.heads + shape.kv_heads);
  const int64_t elements = shape.hidden_copies * shape.hidden + attention * shape.head_dim +
                           shape.wide_copies * shape.intermediate + shape.adapter_rank;
  return elements * width + 4 * (shape.heads + 2);
}

/// Alive at once while a block's feed-forward part goes backward (three wide gradients, three
/// narrow ones).
int64_t working_per_token(const ActivationShape& shape, int64_t width) {
  return (shape.wide_copies * shape.intermediate + 3 * shape.hidden) * width;
}

int64_t saved_activations(const PlanRequest& request) {
  const ActivationShape& shape = request.activations;
  const int64_t block = saved_per_token(shape, request.compute_bytes) * shape.tokens;
  const int64_t input = shape.hidden * request.compute_bytes * shape.tokens;
  // The last block's sum is kept for the final norm; its output is the hidden state.
  return (shape.checkpointing ? shape.layers * input : shape.layers * block) + 2 * input;
}

int64_t head_chunk_rows(const ActivationShape& shape) {
  int64_t rows = shape.head_chunk_rows;
  if (rows <= 0) {
    const int64_t fitting = kLogitBytes / std::max<int64_t>(4 * shape.vocabulary, 1);
    rows = std::clamp(fitting / kMinChunkRows * kMinChunkRows, kMinChunkRows, kMaxChunkRows);
  }
  return std::min(rows, shape.tokens);
}

int64_t head_work(const PlanRequest& request, bool trains_head) {
  const ActivationShape& shape = request.activations;
  const int64_t width = request.compute_bytes;
  int64_t bytes = head_chunk_rows(shape) * (shape.vocabulary + 2 * shape.hidden) * width;
  // The matrix library packs a copy of the head's weight (measured; those of blocks are small
  // beside it).
  bytes += shape.vocabulary * shape.hidden * width;
  if (!request.training) {
    return bytes;
  }
  bytes += shape.tokens * shape.hidden * width;  // gradient of the hidden states
  if (width == 2) {
    bytes += 8 * shape.vocabulary;  // one row in fp32, twice
    // bf16 products are rounded before they are added in fp32: the head's is as large as the head.
    bytes += trains_head ? shape.vocabulary * shape.hidden * width : 0;
  }
  return bytes;
}

/// The three moments at which a step can be largest: the head, the backward of a block, the
/// backward of the embedding.
std::vector<Moment> moments_of(const PlanRequest& request, const std::vector<UnitSize>& sizes) {
  const int stage = stage_of(request);
  const size_t count = sizes.size();
  const size_t head = request.units[count - 1].name == "head" ? count - 1 : 0;
  const bool trains_head = sizes[head].gradients > 0;
  const auto whole = [&](size_t unit) { return stage == 3 ? sizes[unit].values : 0; };
  const auto unreduced = [&](size_t unit) {
    return stage >= 2 && request.training ? sizes[unit].gradients : 0;
  };
  const size_t last_block = head == count - 1 && count > 1 ? count - 2 : count - 1;
  const ActivationShape& shape = request.activations;
  const int64_t working = working_per_token(shape, request.compute_bytes) * shape.tokens;
  const int64_t block = saved_per_token(shape, request.compute_bytes) * shape.tokens;
  const int64_t saved = request.training ? saved_activations(request) : 0;

  std::vector<Moment> moments;
  moments.push_back({request.training ? saved : block,
                     head_work(request, trains_head),
                     whole(head) + (head == last_block ? 0 : whole(last_block)) + unreduced(head)});
  for (size_t unit = 0; unit < count; ++unit) {
    const int64_t next = unit > 0 ? whole(unit - 1) : 0;
    // Of the saved activations, those of later blocks are gone by then: the last block is the
    // moment that counts.
    const bool counts = request.training && unit == last_block;
    moments.push_back({counts ? saved + working + (shape.checkpointing ? block : 0) : 0,
                       0,
                       whole(unit) + next + unreduced(unit)});
  }
  if (request.training && head == 0 && trains_head && stage < 2) {
    moments.push_back({shape.tokens * shape.hidden * request.compute_bytes, 0, sizes[0].gradients});
  }
  return moments;
}

/// What the caching allocator holds on to: buffers of different sizes do not serve each other, so
/// those of all moments add up, until it gives back what exceeds an eighth of the most that was
/// ever in use (tensor/allocator).
int64_t kept_bytes(const PlanRequest& request,
                   const std::vector<UnitSize>& sizes,
                   const std::vector<Moment>& moments,
                   const Moment& largest,
                   int64_t persistent) {
  const int stage = stage_of(request);
  const bool untied = request.units.back().name == "head";
  int64_t activations = 0;
  int64_t head = 0;
  for (const Moment& moment : moments) {
    activations = std::max(activations, moment.activations);
    head = std::max(head, moment.head);
  }
  UnitSize block;
  for (size_t unit = 1; unit < sizes.size() - (untied ? 1 : 0); ++unit) {
    block.values = std::max(block.values, sizes[unit].values);
    block.gradients = std::max(block.gradients, sizes[unit].gradients);
  }
  int64_t ever = activations + head;
  if (stage == 3) {
    ever += sizes[0].values + 2 * block.values + (untied ? sizes.back().values : 0);
  }
  if (stage >= 2) {
    ever += sizes[0].gradients + block.gradients;
  } else if (!untied) {
    ever += sizes[0].gradients;
  }
  const int64_t limit = (persistent + largest.total()) / 8 + (int64_t{32} << 20);
  if (request.varying) {
    return limit;
  }
  return std::clamp<int64_t>(ever - largest.total(), 0, limit);
}

double mebibytes(int64_t bytes) {
  return static_cast<double>(bytes) / (1024.0 * 1024.0);
}

}  // namespace

int64_t MemoryPlan::total() const {
  const int64_t step = transient + activations + head + kept;
  return parameters + gradients + optimizer_state + other_models + std::max(step, generation) +
         base;
}

MemoryPlan plan_memory(const PlanRequest& request) {
  MemoryPlan plan;
  plan.base = kBaseBytes;
  if (request.units.empty()) {
    return plan;
  }
  const std::vector<UnitSize> sizes = unit_sizes(request);
  add_persistent(request, sizes, plan);
  plan.reduced_per_step = reduced_bytes(request, sizes);
  const std::vector<Moment> moments = moments_of(request, sizes);
  const Moment& largest =
      *std::max_element(moments.begin(), moments.end(), [](const Moment& a, const Moment& b) {
        return a.total() < b.total();
      });
  plan.activations = largest.activations;
  plan.head = largest.head;
  plan.transient = largest.transient;
  if (request.training) {
    plan.kept = kept_bytes(
        request, sizes, moments, largest, plan.parameters + plan.gradients + plan.optimizer_state);
  }
  return plan;
}

std::string to_text(const MemoryPlan& plan) {
  const auto line = [](const char* name, int64_t bytes) {
    return fmt::format("  {:<16}{:>12.1f} MiB\n", name, mebibytes(bytes));
  };
  const auto some = [&line](const char* name, int64_t bytes) {
    return bytes > 0 ? line(name, bytes) : std::string();
  };
  return line("parameters", plan.parameters) + line("gradients", plan.gradients) +
         line("optimizer state", plan.optimizer_state) + some("other models", plan.other_models) +
         some("generating", plan.generation) + line("units in use", plan.transient) +
         line("activations", plan.activations) + line("head and loss", plan.head) +
         line("kept for reuse", plan.kept) + line("process", plan.base) +
         line("total a rank", plan.total()) + line("reduced a step", plan.reduced_per_step);
}

}  // namespace kamerton::optim
