// SPDX-License-Identifier: Apache-2.0
#include "names_elsewhere.h"

#include <array>

namespace kamerton::cli {
namespace {

// transformers, TRL, PEFT, DeepSpeed, torchtune, Axolotl and LLaMA-Factory, Opacus, Flower.
constexpr auto kNamesElsewhere = std::to_array<config::NameElsewhere>({
    {"activation_checkpoint", "model.activation_checkpointing"},
    {"adam_beta1", "optim.beta1"},
    {"adam_beta2", "optim.beta2"},
    {"adam_epsilon", "optim.eps"},
    {"assistant_only_loss", "data.train_on"},
    {"base_model", "model.path"},
    {"batch_size", "data.batch_rows"},
    {"bf16", "model.dtype"},
    {"block_size", "data.sequence_length"},
    {"completion_only_loss", "data.train_on"},
    {"cutoff_len", "data.sequence_length"},
    {"dataset", "data.train"},
    {"dataset_name", "data.train"},
    {"datasets", "data.train"},
    {"deepspeed", "optim.zero_stage"},
    {"eval_dataset", "data.eval"},
    {"eval_steps", "train.eval_every"},
    {"ewc_lambda", "keep.ewc.strength"},
    {"exclude_modules", "tuning.exclude"},
    {"finetuning_type", "tuning.method"},
    {"fraction_fit", "federation.cohort.size"},
    {"fsdp", "optim.zero_stage"},
    {"global_batch_size", "data.batch_rows"},
    {"grad_clip", "optim.max_grad_norm"},
    {"gradient_accumulation_steps", "data.batch_rows"},
    {"gradient_checkpointing", "model.activation_checkpointing"},
    {"gradient_clipping", "optim.max_grad_norm"},
    {"init_lora_weights", "tuning.lora.init"},
    {"learning_rate", "optim.lr"},
    {"load_in_4bit", "tuning.quantize"},
    {"load_in_8bit", "tuning.quantize"},
    {"logging_steps", "train.log_every"},
    {"lora_alpha", "tuning.lora.alpha"},
    {"lora_dropout", "tuning.lora.dropout"},
    {"lora_r", "tuning.lora.r"},
    {"lora_rank", "tuning.lora.r"},
    {"lora_target", "tuning.lora.targets"},
    {"loss_type", "objective.loss"},
    {"lr_scheduler", "optim.schedule"},
    {"lr_scheduler_type", "optim.schedule"},
    {"max_completion_length", "objective.rollout.max_new_tokens"},
    {"max_length", "data.sequence_length"},
    {"max_seq_len", "data.sequence_length"},
    {"max_seq_length", "data.sequence_length"},
    {"max_steps", "train.steps"},
    {"micro_batch_size", "data.micro_batch_rows"},
    {"mixed_precision", "model.dtype"},
    {"model_name_or_path", "model.path"},
    {"noise_multiplier", "privacy.noise"},
    {"num_epochs", "train.epochs"},
    {"num_generations", "objective.rollout.samples"},
    {"num_rounds", "federation.rounds"},
    {"num_server_rounds", "federation.rounds"},
    {"num_train_epochs", "train.epochs"},
    {"num_warmup_steps", "optim.warmup_steps"},
    {"optimizer", "optim.algorithm"},
    {"output_dir", "output"},
    {"peft_type", "tuning.method"},
    {"per_device_train_batch_size", "data.micro_batch_rows"},
    {"report_to", "telemetry.tensorboard"},
    {"reward_funcs", "objective.rewards"},
    {"run_name", "name"},
    {"save_every", "train.checkpoint.every"},
    {"save_steps", "train.checkpoint.every"},
    {"save_total_limit", "train.checkpoint.keep"},
    {"seq_len", "data.sequence_length"},
    {"stage", "optim.zero_stage"},
    {"target_epsilon", "privacy.epsilon"},
    {"target_modules", "tuning.lora.targets"},
    {"torch_dtype", "model.dtype"},
    {"train_batch_size", "data.batch_rows"},
    {"train_dataset", "data.train"},
    {"train_file", "data.train"},
    {"train_micro_batch_size_per_gpu", "data.micro_batch_rows"},
    {"train_on_inputs", "data.train_on"},
    {"val_size", "data.validation_fraction"},
    {"validation_file", "data.eval"},
    {"zero", "optim.zero_stage"},
    {"zero_optimization", "optim.zero_stage"},
});

}  // namespace

std::span<const config::NameElsewhere> names_elsewhere() {
  return kNamesElsewhere;
}

}  // namespace kamerton::cli
