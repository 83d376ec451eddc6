// SPDX-License-Identifier: Apache-2.0
// Bytes a rank will need, from shapes alone: nothing is loaded or allocated.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kamerton/optim/config.h"
#include "kamerton/tensor/param_unit.h"

namespace kamerton::optim {

/// What decides the size of activations. The defaults are those of a Llama.
struct ActivationShape {
  int64_t layers = 0;
  int64_t hidden = 0;
  int64_t intermediate = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t hidden_copies = 4;  ///< [tokens, hidden] saved by a block: input, middle sum, one a norm
  int64_t wide_copies = 3;    ///< [tokens, intermediate]: gate, up, product; 2 without a gate
  bool qk_norm = false;       ///< q and k are saved before their norms, too
  int64_t vocabulary = 0;
  int64_t tokens = 0;           ///< of one micro-batch on one rank, padding included
  int64_t head_chunk_rows = 0;  ///< rows of logits alive at once; 0: as tensor::token_loss chooses
  bool checkpointing = false;   ///< blocks are recomputed in backward
  int64_t adapter_rank = 0;     ///< sum of LoRA ranks over the linear layers of a block; 0: none
};

struct PlanRequest {
  std::vector<tensor::ParamUnit> units;  ///< shapes and trainable flags only; need not be placed
  OptimConfig optim;
  int shard = 1;              ///< ranks that a model is cut over
  int64_t compute_bytes = 4;  ///< 4: fp32, 2: bf16 with fp32 masters
  ActivationShape activations;
  bool training = true;
  int64_t micro_batches = 1;  ///< of a step, on one rank
  bool varying = false;       ///< batches change their size: the allocator keeps all that it may
  /// Frozen elements whose state is kept for when they are trained again.
  int64_t sleeping = 0;
};

/// All in bytes on one rank.
struct MemoryPlan {
  int64_t parameters = 0;       ///< persistent, compute dtype
  int64_t gradients = 0;        ///< persistent, fp32
  int64_t optimizer_state = 0;  ///< moments and masters
  int64_t transient =
      0;  ///< gathered units (stage 3), the unit's unreduced gradient (stages 2, 3), reduce buffers
  int64_t activations = 0;   ///< saved for backward, and the largest block's working set
  int64_t head = 0;          ///< chunk of logits and the gradient of the hidden states
  int64_t kept = 0;          ///< freed, and kept by the allocator for the next step
  int64_t other_models = 0;  ///< frozen ones beside it: reference, teacher, judges
  /// While answers are generated, instead of transient, activations, head and kept: keys and
  /// values, and weights that are gathered for it.
  int64_t generation = 0;
  int64_t base = 0;  ///< the process before a model is loaded
  /// Not memory, and no part of total(): gradients that a rank gives to reductions in a step.
  int64_t reduced_per_step = 0;

  int64_t total() const;
};

MemoryPlan plan_memory(const PlanRequest& request);

/// One line a part, in MiB, and the total; for `plan` and the header of `train`.
std::string to_text(const MemoryPlan& plan);

}  // namespace kamerton::optim
