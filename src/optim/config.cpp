// SPDX-License-Identifier: Apache-2.0
#include "kamerton/optim/config.h"

#include "kamerton/core/error.h"

namespace kamerton::optim {

namespace {

void describe_rule(config::Fields& fields, OptimConfig& config) {
  fields.knob("algorithm",
              config.algorithm,
              {.text = "The update rule.",
               .cost = "adamw keeps 8 bytes an element, sgd 4, sgd without momentum none",
               .choices = {"adamw", "sgd"}});
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
      {.text = "SGD: share of the previous direction that is kept.", .min = 0.0, .max = 0.9999999});
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

void describe(config::Fields& fields, OptimConfig& config) {
  describe_rule(fields, config);
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
  if (config.algorithm != "adamw" && config.algorithm != "sgd") {
    throw core::Error(core::ErrorKind::Config,
                      {.where = "optim.validate",
                       .what = "no such update rule",
                       .got = "'" + config.algorithm + "'",
                       .allowed = "adamw or sgd",
                       .hint = "optim.algorithm: adamw"});
  }
}

int num_moments(const OptimConfig& config) {
  if (config.algorithm == "adamw") {
    return 2;
  }
  return config.momentum > 0.0 ? 1 : 0;
}

}  // namespace kamerton::optim
