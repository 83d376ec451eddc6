// SPDX-License-Identifier: Apache-2.0
#include "kamerton/tuning/config.h"

namespace kamerton::tuning {

bool is_adapter(const std::string& method) {
  return method != "full" && method != "half";
}

void describe(config::Fields& f, LoraConfig& c) {
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
  f.knob(
      "use_dora",
      c.use_dora,
      {.text = "weight-decomposed: a trained length for every row of the weight (arXiv 2402.09353)",
       .cost = "one product B A and one pass over the weight a use"});
  f.knob(
      "init",
      c.init,
      {.text = "how A and B start: default (A uniform, B zero), gaussian (A normal), pissa (the r "
               "largest singular parts of the weight, taken out of it; arXiv 2404.02948), olora "
               "(its QR factors; arXiv 2406.01775)",
       .cost = "pissa: a singular value decomposition of each target at the start; the result is "
               "written as LoRA of rank 2 r for the untouched base",
       .choices = {"default", "gaussian", "pissa", "olora"}});
  f.knob(
      "freeze_a",
      c.freeze_a,
      {.text = "train B only (FFA-LoRA, arXiv 2403.12313): averages of such adapters are exact"});
  f.knob("loraplus_lr_ratio",
         c.loraplus_lr_ratio,
         {.text = "LoRA+: the learning rate of B over that of A (arXiv 2402.12354); 16 is usual",
          .min = 0,
          .min_exclusive = true});
  f.knob(
      "targets",
      c.targets,
      {.text = "names of linear modules ('q_proj') or of the embedding, or 'all-linear' for every "
               "one but the output head, or one regular expression that starts with 're:'"});
  f.knob(
      "rank_pattern",
      c.rank_pattern,
      {.text = "EXPRESSION=R for modules whose name ends with a match: 'layers\\.0\\..*q_proj=4'"});
  f.knob("alpha_pattern", c.alpha_pattern, {.text = "EXPRESSION=ALPHA, in the same way"});
}

void describe(config::Fields& f, HalfConfig& c) {
  f.knob("level",
         c.level,
         {.text = "within what half is drawn: category (2 of 4 attention matrices, 2 or 1 of 3 "
                  "feed-forward matrices of each layer), whole layers, or matrices of the whole "
                  "model",
          .choices = {"category", "layer", "model"}});
  f.knob(
      "redraw",
      c.redraw,
      {.text = "when another half is drawn: never, after each pass over the data, or for each of "
               "the run's tasks",
       .cost = "weights and state move between ranks once a draw",
       .choices = {"never", "epoch", "task"}});
  f.knob("state",
         c.state,
         {.text = "the optimizer's state at a new draw: keep it where a weight stays trained, drop "
                  "all of it, or also restore it for weights that are drawn again",
          .cost = "restore: the state of all weights that were ever trained stays in memory, cut "
                  "over the ranks",
          .choices = {"keep", "drop", "restore"}});
}

namespace {

/// What goes beside or around a method.
void describe_around(config::Fields& f, TuningConfig& c) {
  f.knob("adapter",
         c.adapter,
         {.text = "folder of a PEFT adapter to go on from (its method, settings and targets win)"});
  f.knob(
      "quantize",
      c.quantize,
      {.text = "QLoRA: the frozen linear weights of the blocks in fewer bits: nf4 (4.13 bits a "
               "weight, code book and blocks of bitsandbytes) or int8",
       .cost = "each product makes the weight wide again: slower; ZeRO 3 cuts them like any others",
       .choices = {"none", "nf4", "int8"}});
  f.knob("neftune_noise_alpha",
         c.neftune_noise_alpha,
         {.text = "NEFTune: uniform noise of alpha / sqrt(length x width) on the embeddings in "
                  "training (arXiv 2310.05914); the length is that of each token's own document, "
                  "packed or not; 5 is usual; 0: none",
          .min = 0});
  f.knob("freeze",
         c.freeze,
         {.text = "regular expressions; parameters whose whole name matches one are not trained",
          .cost = "none: frozen weights need no gradient or state"});
}

}  // namespace

void describe(config::Fields& f, TuningConfig& c) {
  std::vector<std::string> methods = method_names();
  methods.insert(methods.begin() + 1, {"full", "half"});
  f.knob(
      "method",
      c.method,
      {.text = "what is trained: full every weight, half one half of the matrices, partial those "
               "that 'train' and 'last_layers' "
               "name, bitfit the biases, the others an adapter (kamerton adapter methods says "
               "which is what)",
       .cost = "full trains every weight: 12 to 16 bytes a parameter; half one half of that; lora "
               "about 1 %",
       .choices = methods});
  f.section("half", c.half, "Half Fine-Tuning (method: half).");
  f.section("lora", c.lora, "Low-rank adapters (method: lora).");
  f.knob(
      "targets",
      c.targets,
      {.text = "modules that the adapter changes, as lora.targets and instead of it; empty: that, "
               "or the method's own choice"});
  f.knob("exclude",
         c.exclude,
         {.text = "modules among the targets that stay as they are: names, or one re:EXPRESSION"});
  f.knob(
      "settings",
      c.settings,
      {.text = "NAME=VALUE of the method's settings, named as in PEFT: 'r=8', 'oft_block_size=4' "
               "(kamerton adapter methods lists them)"});
  f.knob("layers", c.layers, {.text = "numbers of the layers that are changed; empty: all"});
  f.knob("modules_to_save",
         c.modules_to_save,
         {.text = "modules trained whole beside the adapter and saved in it: 'lm_head', "
                  "'input_layernorm'",
          .cost = "as full tuning of these modules"});
  f.knob(
      "bias",
      c.bias,
      {.text = "biases trained beside the adapter: none, all, or lora_only (those of its targets)",
       .choices = {"none", "all", "lora_only"}});
  f.knob(
      "train",
      c.train,
      {.text = "method partial: regular expressions; parameters whose whole name matches one are "
               "trained"});
  f.knob("last_layers",
         c.last_layers,
         {.text = "method partial: the last so many layers are trained (the final norm with them)",
          .min = 0});
  describe_around(f, c);
}

}  // namespace kamerton::tuning
