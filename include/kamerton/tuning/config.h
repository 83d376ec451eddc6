// SPDX-License-Identifier: Apache-2.0
// What is trained: everything, or an adapter on a frozen base.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "kamerton/config/field.h"

namespace kamerton::tuning {

/// LoRA, arXiv 2106.09685: y = W x + s B (A x), A [r, in], B [out, r].
struct LoraConfig {
  int64_t r = 16;
  double alpha = 32;
  double dropout = 0;
  bool use_rslora = false;
  std::vector<std::string> targets = {"all-linear"};
};

struct TuningConfig {
  std::string method = "lora";
  LoraConfig lora;
  std::optional<std::string> adapter;
  std::vector<std::string> freeze;
};

inline void describe(config::Fields& f, LoraConfig& c) {
  f.knob("r",
         c.r,
         {.text = "rank of the update",
          .cost = "adapter size and optimizer state grow with it",
          .min = 1,
          .max = 4096});
  f.knob("alpha",
         c.alpha,
         {.text = "scale: the update is multiplied by alpha / r", .min = 0, .min_exclusive = true});
  f.knob("dropout",
         c.dropout,
         {.text = "probability that an input of A is dropped in training",
          .cost = "one pass over the activations",
          .min = 0,
          .max = 0.999});
  f.knob("use_rslora",
         c.use_rslora,
         {.text = "rank-stabilised scaling: alpha / sqrt(r) (arXiv 2312.03732)"});
  f.knob("targets",
         c.targets,
         {.text = "names of linear modules ('q_proj'), or 'all-linear' for every one but the "
                  "output head, or one regular expression "
                  "that starts with 're:'"});
}

inline void describe(config::Fields& f, TuningConfig& c) {
  f.knob("method",
         c.method,
         {.text = "what is trained",
          .cost = "full trains every weight: 12 to 16 bytes a parameter; lora about 1 % of that",
          .choices = {"lora", "full"}});
  f.section("lora", c.lora, "Low-rank adapters (method: lora).");
  f.knob("adapter",
         c.adapter,
         {.text = "folder of a PEFT adapter to go on from (its r, alpha and targets win)"});
  f.knob("freeze",
         c.freeze,
         {.text = "regular expressions; parameters whose whole name matches one are not trained",
          .cost = "none: frozen weights need no gradient or state"});
}

}  // namespace kamerton::tuning
