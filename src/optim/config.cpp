// SPDX-License-Identifier: Apache-2.0
#include "kamerton/optim/config.h"

#include "kamerton/core/error.h"

namespace kamerton::optim {

namespace {

void describe_rule(config::Fields& fields, OptimConfig& config) {
  fields.knob("algorithm",
              config.algorithm,
              {.text = "The update rule.",
               .cost = "adamw keeps 8 bytes an element, adamw8bit 2 (bitsandbytes' form), sgd 4, "
                       "sgd without momentum none, muon 4, adafactor a number a row and column, "
                       "apollo 8 for each of apollo_rank numbers a row or column",
               .choices = {"adamw", "sgd", "adamw8bit", "muon", "apollo", "adafactor"}});
  fields.knob(
      "lr",
      config.lr,
      {.text = "The highest learning rate of the schedule. 1e-5 to 5e-5 suits whole models, "
               "1e-4 to 5e-4 adapters.",
       .min = 0.0,
       .max = 100.0});
  fields.knob(
      "beta1",
      config.beta1,
      {.text = "AdamW: how slowly the mean gradient changes.", .min = 0.0, .max = 0.9999999});
  fields.knob("beta2",
              config.beta2,
              {.text = "AdamW: how slowly the mean squared gradient changes.",
               .min = 0.0,
               .max = 0.9999999});
  fields.knob(
      "eps",
      config.eps,
      {.text = "AdamW: added to the denominator.", .min = 0.0, .max = 1.0, .min_exclusive = true});
  fields.knob(
      "momentum",
      config.momentum,
      {.text = "SGD, Muon: share of the previous direction that is kept (Muon: 0.95 is usual).",
       .min = 0.0,
       .max = 0.9999999});
}

/// Rules that look at more than an element at a time.
void describe_matrix_rules(config::Fields& fields, OptimConfig& config) {
  fields.knob(
      "muon_scale",
      config.muon_scale,
      {.text = "Muon: rms makes a matrix's update as large as AdamW's, so that one learning "
               "rate suits all (arXiv 2502.16982); original: sqrt(max(1, rows / columns)).",
       .choices = {"rms", "original"}});
  fields.knob(
      "apollo_rank",
      config.apollo_rank,
      {.text = "APOLLO (arXiv 2412.05270): dimensions that the gradient of a block's matrix "
               "is projected on; a quarter of the hidden size is usual, 1 with "
               "apollo_scale_type tensor and apollo_scale 128 is APOLLO-Mini.",
       .cost = "state of the matrices grows with it",
       .min = 1});
  fields.knob("apollo_scale_type",
              config.apollo_scale_type,
              {.text = "APOLLO: the gradient is stretched by channel, or a whole matrix alike.",
               .choices = {"channel", "tensor"}});
  fields.knob("apollo_scale",
              config.apollo_scale,
              {.text = "APOLLO: updates are multiplied by its square root.",
               .min = 0.0,
               .min_exclusive = true});
  fields.knob("apollo_update_gap",
              config.apollo_update_gap,
              {.text = "APOLLO: updates until another random matrix is drawn.", .min = 1});
  fields.knob("scale_by_weights",
              config.scale_by_weights,
              {.text = "Adafactor: the learning rate is a share of each parameter's own size "
                       "(scale_parameter of transformers); 1e-3 to 1e-2 suits then."});
}

void describe_decay(config::Fields& fields, OptimConfig& config) {
  fields.knob(
      "weight_decay",
      config.weight_decay,
      {.text = "Pull of weights towards zero. AdamW: decoupled, times the learning rate; sgd: "
               "added to the gradient.",
       .min = 0.0,
       .max = 10.0});
  fields.knob("decay_1d",
              config.decay_1d,
              {.text = "Decay parameters with fewer than two dims (norms, biases) too."});
  fields.list("groups",
              config.groups,
              "Parameters with a learning rate or weight decay of their own; the last group that "
              "matches counts.");
  fields.knob("layer_decay",
              config.layer_decay,
              {.text = "The learning rate of each layer is this times that of the next one, the "
                       "embedding's the lowest (arXiv 2003.10555); 1: all alike.",
               .min = 0.0,
               .max = 1.0,
               .min_exclusive = true});
}

void describe_schedule(config::Fields& fields, OptimConfig& config) {
  fields.knob(
      "schedule",
      config.schedule,
      {.text = "The learning rate after warm-up: constant; linear or cosine down to the end; "
               "wsd stays at the top and falls in the last part.",
       .choices = {"constant", "linear", "cosine", "wsd"}});
  fields.knob("warmup_steps",
              config.warmup_steps,
              {.text = "Length of the linear rise from 0; wins over warmup_ratio.",
               .unit = "optimizer updates",
               .min = 0});
  fields.knob("warmup_ratio",
              config.warmup_ratio,
              {.text = "Length of the linear rise from 0 as a share of all updates, rounded up.",
               .min = 0.0,
               .max = 1.0});
  fields.knob("min_lr_ratio",
              config.min_lr_ratio,
              {.text = "Learning rate at the end over the highest one (linear, cosine, wsd).",
               .min = 0.0,
               .max = 1.0});
  fields.knob("decay_ratio",
              config.decay_ratio,
              {.text = "wsd: share of all updates, the last ones, over which the learning rate "
                       "falls; rounded up.",
               .min = 0.0,
               .max = 1.0});
  fields.knob("decay_shape",
              config.decay_shape,
              {.text = "wsd: how it falls.", .choices = {"cosine", "linear", "1-sqrt"}});
}

void describe_limits(config::Fields& fields, OptimConfig& config) {
  fields.knob("max_grad_norm",
              config.max_grad_norm,
              {.text = "Gradients with a larger global 2-norm are scaled down to it; 0: never.",
               .min = 0.0});
  fields.knob(
      "ema_decay",
      config.ema_decay,
      {.text = "Keep a moving average of the weights beside them: after each update average = "
               "decay * average + (1 - decay) * weights. Saved in checkpoints; kamerton "
               "export --ema writes it. 0: none.",
       .cost = "4 bytes an element, cut over ranks as the optimizer's state is",
       .min = 0.0,
       .max = 0.9999999});
  fields.knob("zero_stage",
              config.zero_stage,
              {.text = "What is cut over the ranks of the shard axis instead of kept on each: 0 "
                       "nothing, 1 optimizer state, 2 and gradients, 3 and parameters.",
               .cost = "1: none; 2: gradients travel once a micro-batch instead of once an update; "
                       "3: parameters travel twice a micro-batch as well",
               .min = 0,
               .max = 3});
  fields.knob("max_skipped_steps",
              config.max_skipped_steps,
              {.text = "A step whose loss or gradient is not finite is skipped on all ranks; more "
                       "than this many in a row end the run.",
               .unit = "optimizer updates",
               .min = 0});
}

}  // namespace

void describe(config::Fields& fields, ParameterGroup& group) {
  fields.knob(
      "match", group.match, {.text = "Regular expression for whole names, such as .*\\.mlp\\..*"});
  fields.knob("lr_ratio",
              group.lr_ratio,
              {.text = "Times optim.lr; 0: the parameters stay as they are.", .min = 0.0});
  fields.knob(
      "weight_decay", group.weight_decay, {.text = "Instead of optim.weight_decay.", .min = 0.0});
}

void describe(config::Fields& fields, OptimConfig& config) {
  describe_rule(fields, config);
  describe_matrix_rules(fields, config);
  describe_decay(fields, config);
  describe_schedule(fields, config);
  describe_limits(fields, config);
}

void validate(const OptimConfig& config) {
  if (config.schedule == "wsd" && !config.warmup_steps &&
      config.warmup_ratio + config.decay_ratio > 1.0) {
    throw core::Error(core::ErrorKind::Config,
                      {.where = "optim.validate",
                       .what = "warm-up and decay take more than the whole run",
                       .got = "warmup_ratio + decay_ratio = " +
                              std::to_string(config.warmup_ratio + config.decay_ratio),
                       .allowed = "at most 1",
                       .hint = "a smaller optim.decay_ratio"});
  }
  if (config.zero_stage < 0 || config.zero_stage > 3) {
    throw core::Error(core::ErrorKind::Config,
                      {.where = "optim.validate",
                       .what = "no such ZeRO stage",
                       .got = std::to_string(config.zero_stage),
                       .allowed = "0, 1, 2 or 3",
                       .hint = "optim.zero_stage: 1"});
  }
}

}  // namespace kamerton::optim
