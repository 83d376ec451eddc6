// SPDX-License-Identifier: Apache-2.0
// From a configuration to the parts of a run, in the one order in which they depend on each other.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "kamerton/comm/session.h"
#include "kamerton/mesh/mesh.h"
#include "kamerton/model/decoder.h"
#include "kamerton/model/weights.h"
#include "kamerton/optim/memory_plan.h"
#include "kamerton/optim/sharded_parameters.h"
#include "kamerton/text/bundle.h"
#include "kamerton/tuning/adapter.h"
#include "kamerton/tuning/half.h"
#include "kamerton/tuning/neftune.h"
#include "kamerton/tuning/peft_format.h"

#include "run_config.h"

namespace kamerton::cli {

/// A decoder ready to be placed: architecture, adapter and freezing applied, no memory given yet.
struct Tuned {
  std::unique_ptr<model::Decoder> decoder;
  std::optional<tuning::Adapter> adapter;
  std::optional<tuning::PeftAdapter> start;  ///< the adapter that the run goes on from
  std::shared_ptr<tuning::Neftune> noise;    ///< null: none
  std::optional<tuning::HalfDraws> half;     ///< method half; the flags are those of draw 0
};
Tuned build_tuned(const RunConfig& config);

/// A parameter of the base, whole, fp32, from the files.
tuning::ReadBase base_reader(const model::WeightSource& weights);

/// Fills parameters from the base model, the adapter's file or the adapter's initial values; packed
/// ones (tuning.quantize) from the base.
optim::ShardedParameters::Fill filler(const RunConfig& config,
                                      const Tuned& tuned,
                                      const model::WeightSource& weights);

/// Whether the objective compares with a reference model that has memory of its own (an adapter
/// that starts from nothing is switched off instead).
bool has_own_reference(const RunConfig& config, const Tuned& tuned);

/// Counts over all parameters.
struct ParameterCounts {
  int64_t all = 0;
  int64_t trainable = 0;
};
ParameterCounts count_parameters(const model::Decoder& decoder);

/// "LlamaForCausalLM, 135 M parameters, 4.9 M trained (lora r 16), fp32": for the header.
std::string describe(const Tuned& tuned);

/// A decoder with whole weights for generate, chat and eval: the base model, with an adapter merged
/// in when given (or put on it, where its kind cannot be merged). `pickle`: a .bin or .pt file that
/// holds the weights instead of the folder's.
/// must_merge: ErrorKind::Config for an adapter that cannot be merged.
std::unique_ptr<model::Decoder> load_for_inference(const std::string& model_dir,
                                                   const std::string& adapter_dir,
                                                   const std::string& dtype,
                                                   const std::string& device,
                                                   const std::string& pickle = "",
                                                   bool must_merge = false);

}  // namespace kamerton::cli
