// SPDX-License-Identifier: Apache-2.0
#include "kamerton/model/config.h"

#include "kamerton/config/field.h"

namespace kamerton::model {

void describe(config::Fields& fields, ModelOptions& options) {
  fields.knob(
      "path",
      options.path,
      {.text = "The model: a Hugging Face directory (config.json, *.safetensors, tokenizer)"});
  fields.knob(
      "device",
      options.device,
      {.text = "Where is computed; auto: on a GPU when the program found one and its plug-in, "
               "else on the processor",
       .choices = {"auto", "cpu", "cuda"}});
  fields.knob(
      "dtype",
      options.dtype,
      {.text = "What is computed in; auto: bf16 for 16-bit checkpoints where the processor or GPU "
               "multiplies bf16, else fp32. Master weights are fp32 in any case",
       .cost = "fp32 doubles the memory of parameters and activations",
       .choices = {"auto", "fp32", "bf16"}});
  fields.knob(
      "activation_checkpointing",
      options.activation_checkpointing,
      {.text = "block: keep only each block's input and compute the block again in backward; "
               "the result is the same to the bit",
       .cost = "block: about a third more time for much less activation memory",
       .choices = {"none", "block"}});
  fields.knob("random_init",
              options.random_init,
              {.text = "Use only config.json and draw the weights at random (tests, benchmarks)"});
  fields.knob(
      "allow_pickle",
      options.allow_pickle,
      {.text = "Read pytorch_model.bin where the directory has no safetensors; only tensors "
               "are read from it, nothing is executed"});
  fields.knob("init_seed", options.init_seed, {.text = "Seed of random_init", .min = 0});
  fields.knob(
      "router_aux_loss_coef",
      options.router_aux_loss_coef,
      {.text = "Mixture of experts: weight of the load-balancing loss in the training loss; "
               "absent: router_aux_loss_coef of config.json where output_router_logits is "
               "true there, else 0",
       .min = 0});
  fields.knob("head_chunk_rows",
              options.head_chunk_rows,
              {.text = "Rows of the output head computed at once; 0: chosen from the vocabulary",
               .unit = "tokens",
               .cost = "memory: rows x vocabulary x 4 bytes",
               .min = 0,
               .max = 1 << 20});
}

}  // namespace kamerton::model
