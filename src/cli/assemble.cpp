// SPDX-License-Identifier: Apache-2.0
#include "assemble.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "kamerton/core/error.h"
#include "kamerton/core/format.h"

namespace kamerton::cli {

namespace {

/// Heads that begin at random or at zero are trained beside any adapter.
void train_new_heads(const model::Decoder& decoder) {
  const model::DecoderConfig& config = decoder.config();
  for (const std::string& name : {std::string(model::kValueHead), config.names.head + ".weight"}) {
    const tensor::ParameterPtr head = decoder.find_parameter(name);
    if (head != nullptr && (name == model::kValueHead || config.score_head)) {
      head->trainable = true;
    }
  }
}

}  // namespace

Tuned build_tuned(const RunConfig& config) {
  Tuned tuned;
  tuned.decoder =
      std::make_unique<model::Decoder>(model::read_config(config.model.path), config.model);
  if (!config.model.score_head) {
    model::require_tokens(tuned.decoder->config(), "cli.assemble");
  }
  if (config.tuning.method == "lora") {
    tuning::LoraSpec spec = tuning::LoraSpec::from(config.tuning.lora);
    if (config.tuning.adapter.has_value()) {
      tuned.start = tuning::PeftAdapter::open(*config.tuning.adapter);
      spec = tuned.start->spec();
    }
    tuned.lora = tuning::Lora::attach(*tuned.decoder, spec);
    if (tuned.start.has_value()) {
      tuned.start->check_complete(*tuned.lora);
    }
  } else if (config.tuning.adapter.has_value()) {
    throw core::Error(core::ErrorKind::Config,
                      {.where = "cli.assemble",
                       .what = "tuning.adapter is for method lora",
                       .got = "method " + config.tuning.method,
                       .hint = "tuning.method: lora, or merge first with kamerton export --merge"});
  }
  train_new_heads(*tuned.decoder);
  tuning::freeze(*tuned.decoder, config.tuning.freeze);
  if (count_parameters(*tuned.decoder).trainable == 0) {
    throw core::Error(core::ErrorKind::Config,
                      {.where = "cli.assemble",
                       .what = "nothing is left to train",
                       .hint = "a narrower tuning.freeze"});
  }
  return tuned;
}

optim::ShardedParameters::Fill filler(const RunConfig& config,
                                      const Tuned& tuned,
                                      const model::WeightSource& weights) {
  const auto seed = static_cast<uint64_t>(config.train.seed);
  return
      [&tuned, &weights, seed](const tensor::Parameter& parameter, int64_t offset, at::Tensor out) {
        if (!parameter.adapter) {
          weights.read(parameter, offset, out);
        } else if (tuned.start.has_value()) {
          tuned.start->read(parameter, offset, out);
        } else {
          tuning::Lora::initialise(parameter, seed, offset, out);
        }
      };
}

bool has_own_reference(const RunConfig& config) {
  const bool switches_off = config.tuning.method == "lora" && !config.tuning.adapter.has_value();
  return objective::needs_reference(config.objective) &&
         (config.objective.reference.has_value() || !switches_off);
}

namespace {

/// Bytes of a frozen model on a rank: whole, or at stage 3 its share.
int64_t reference_bytes(const RunConfig& config, const Tuned& tuned, int shard_size) {
  const model::DecoderConfig& shape = tuned.decoder->config();
  const int64_t parameters = config.objective.reference.has_value()
                                 ? model::read_config(*config.objective.reference).parameter_count()
                                 : shape.parameter_count();
  const int64_t bytes = parameters * (tuned.decoder->dtype() == at::kBFloat16 ? 2 : 4);
  return config.optim.zero_stage == 3 ? bytes / shard_size : bytes;
}

}  // namespace

optim::MemoryPlan plan_run(const RunConfig& config, const Tuned& tuned, int shard_size) {
  const model::DecoderConfig& shape = tuned.decoder->config();
  optim::PlanRequest request;
  request.units = tuned.decoder->units();
  request.optim = config.optim;
  request.shard = shard_size;
  request.compute_bytes = tuned.decoder->dtype() == at::kBFloat16 ? 2 : 4;
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
  if (tuned.lora.has_value()) {
    for (const tuning::LoraPair& pair : tuned.lora->pairs()) {
      activations.adapter_rank += pair.a->shape[0];
    }
    activations.adapter_rank /= std::max<int64_t>(shape.layers, 1);
  }
  if (config.model.head_chunk_rows > 0) {
    activations.head_chunk_rows = config.model.head_chunk_rows;
  }
  optim::MemoryPlan plan = optim::plan_memory(request);
  if (has_own_reference(config)) {
    plan.parameters += reference_bytes(config, tuned, shard_size);
  }
  return plan;
}

ParameterCounts count_parameters(const model::Decoder& decoder) {
  ParameterCounts counts;
  for (const tensor::ParamUnit& unit : decoder.units()) {
    counts.trainable += unit.numel(true);
    counts.all += unit.numel(true) + unit.numel(false);
  }
  return counts;
}

std::string describe(const Tuned& tuned) {
  const ParameterCounts counts = count_parameters(*tuned.decoder);
  return fmt::format(
             "{}, {} parameters, {} trained ({}), {}",
             tuned.decoder->config().architecture,
             core::format_count(static_cast<double>(counts.all)),
             core::format_count(static_cast<double>(counts.trainable)),
             tuned.lora.has_value() ? fmt::format("LoRA r {}", tuned.lora->spec().r) : "full",
             tuned.decoder->dtype() == at::kBFloat16 ? "bf16 with fp32 masters" : "fp32") +
         (tuned.decoder->device().is_cpu() ? "" : ", on " + tuned.decoder->device().str());
}

std::unique_ptr<model::Decoder> load_for_inference(const std::string& model_dir,
                                                   const std::string& adapter_dir,
                                                   const std::string& dtype,
                                                   const std::string& device,
                                                   const std::string& pickle) {
  model::ModelOptions options;
  options.weights = pickle;
  options.allow_pickle = !pickle.empty();
  options.path = model_dir;
  options.dtype = dtype;
  options.device = device;
  auto decoder = std::make_unique<model::Decoder>(model::read_config(model_dir), options);
  std::optional<tuning::Lora> lora;
  std::optional<tuning::PeftAdapter> adapter;
  if (!adapter_dir.empty()) {
    adapter = tuning::PeftAdapter::open(adapter_dir);
    lora = tuning::Lora::attach(*decoder, adapter->spec());
    adapter->check_complete(*lora);
  }
  decoder->load_whole();
  if (lora.has_value()) {
    const at::NoGradGuard no_grad;
    for (const tuning::LoraPair& pair : lora->pairs()) {
      for (const tensor::ParameterPtr& parameter : {pair.a, pair.b}) {
        at::Tensor flat = parameter->value.detach().view({-1});
        adapter->read(*parameter, 0, flat);
      }
    }
    lora->merge();
  }
  return decoder;
}

}  // namespace kamerton::cli
