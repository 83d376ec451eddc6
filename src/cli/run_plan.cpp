// SPDX-License-Identifier: Apache-2.0
#include "run_plan.h"

#include <algorithm>

#include "kamerton/model/generate.h"

namespace kamerton::cli {
namespace {

/// Frozen models beside the one that is tuned: reference, teacher, judges. Whole on a rank, or at
/// stage 3 its share.
int64_t other_models_bytes(const RunConfig& config, const Tuned& tuned, int shard_size) {
  const objective::ObjectiveConfig& aim = config.objective;
  int64_t parameters = 0;
  const auto add = [&parameters](const std::string& folder) {
    parameters += model::read_config(folder).parameter_count();
  };
  if (has_own_reference(config, tuned)) {
    if (aim.reference.has_value()) {
      add(*aim.reference);
    } else {
      parameters += tuned.decoder->config().parameter_count();
    }
  }
  if (!aim.distill.teacher.empty() && !aim.distill.precompute) {
    add(aim.distill.teacher);
  }
  for (const objective::RewardConfig& reward : aim.rewards) {
    if (reward.kind == "model") {
      add(reward.model);
    }
  }
  const int64_t bytes = parameters * (tuned.decoder->dtype() == at::kBFloat16 ? 2 : 4);
  return config.optim.zero_stage == 3 ? bytes / shard_size : bytes;
}

/// Keys and values of the answers that are generated together; at stage 3 also the weights, which
/// are held whole for it.
int64_t generation_bytes(const RunConfig& config,
                         const Tuned& tuned,
                         const optim::MemoryPlan& plan,
                         int shard_size,
                         int ranks) {
  if (!objective::generates(config.objective)) {
    return 0;
  }
  const model::DecoderConfig& shape = tuned.decoder->config();
  const objective::RolloutConfig& rollout = config.objective.rollout;
  const int64_t answers =
      std::max<int64_t>(config.data.batch_rows / std::max(ranks, 1), 1) * rollout.samples;
  const int64_t rows =
      data::resolved_sequence_length(config.data, shape.max_positions) + rollout.max_new_tokens;
  const int64_t cached = model::cache_bytes(
      shape, std::min(answers, model::SampleOptions().max_sequences), rows, tuned.decoder->dtype());
  const bool gathers = config.optim.zero_stage == 3;
  return cached + (gathers ? plan.parameters * (shard_size - 1) : 0);
}

/// Records' privacy: the sum of clipped gradients, whole; from stage 2 on the example's own too.
int64_t clipped_bytes(const RunConfig& config, const Tuned& tuned) {
  const int64_t buffers = config.optim.zero_stage >= 2 ? 2 : 1;
  return buffers * count_parameters(*tuned.decoder).trainable * static_cast<int64_t>(sizeof(float));
}

}  // namespace

optim::MemoryPlan plan_run(const RunConfig& config, const Tuned& tuned, int shard_size, int ranks) {
  const model::DecoderConfig& shape = tuned.decoder->config();
  optim::PlanRequest request;
  request.units = tuned.decoder->units();
  request.optim = config.optim;
  request.shard = shard_size;
  request.compute_bytes = tuned.decoder->dtype() == at::kBFloat16 ? 2 : 4;
  request.micro_batches =
      std::max<int64_t>(config.data.batch_rows / (ranks * config.data.micro_batch_rows), 1);
  if (config.tuning.method == "half" && config.tuning.half.redraw != "never" &&
      config.tuning.half.state == "restore") {
    const ParameterCounts counts = count_parameters(*tuned.decoder);
    request.sleeping = counts.all - counts.trainable;
  }
  request.varying = objective::generates(config.objective);
  optim::ActivationShape& activations = request.activations;
  activations.layers = shape.layers;
  activations.hidden = shape.hidden_size;
  activations.intermediate = shape.intermediate_size;
  const model::ModuleNames& names = shape.names;
  activations.hidden_copies = 2;
  for (const std::string* norm : {&names.attention_norm,
                                  &names.attention_out_norm,
                                  &names.feed_forward_norm,
                                  &names.feed_forward_out_norm}) {
    activations.hidden_copies += norm->empty() ? 0 : 1;
  }
  activations.wide_copies = names.gate.empty() && names.gate_up.empty() ? 2 : 3;
  activations.qk_norm = shape.qk_norm != model::QkNorm::None;
  activations.heads = shape.heads;
  activations.kv_heads = shape.kv_heads;
  activations.head_dim = shape.head_dim;
  activations.vocabulary = shape.vocab_size;
  const data::Answers kind = objective::answers_of(config.objective);
  const int64_t answers = kind == data::Answers::Pair || kind == data::Answers::Judged ? 2 : 1;
  const int64_t generated =
      objective::generates(config.objective) ? config.objective.rollout.max_new_tokens : 0;
  activations.tokens =
      answers * config.data.micro_batch_rows *
      (data::resolved_sequence_length(config.data, shape.max_positions) + generated);
  activations.checkpointing = config.model.activation_checkpointing == "block";
  if (tuned.adapter.has_value()) {
    activations.adapter_rank = tuned.adapter->activation_width();
  }
  if (config.model.head_chunk_rows > 0) {
    activations.head_chunk_rows = config.model.head_chunk_rows;
  }
  optim::MemoryPlan plan = optim::plan_memory(request);
  if (config.privacy.enabled()) {
    plan.gradients += clipped_bytes(config, tuned);
  }
  plan.other_models = other_models_bytes(config, tuned, shard_size);
  plan.generation = generation_bytes(config, tuned, plan, shard_size, ranks);
  return plan;
}

}  // namespace kamerton::cli
