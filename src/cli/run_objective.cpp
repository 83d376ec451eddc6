// SPDX-License-Identifier: Apache-2.0
#include "run_objective.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace kamerton::cli {
namespace {

/// A model that is only read: the base, with the run's starting adapter when there is one.
Tuned build_frozen(const RunConfig& config, const std::string& path) {
  Tuned frozen;
  model::ModelOptions options = config.model;
  options.path = path;
  options.activation_checkpointing = "none";
  frozen.decoder = std::make_unique<model::Decoder>(model::read_config(path), options);
  if (config.tuning.adapter.has_value() && !config.objective.reference.has_value()) {
    frozen.start = tuning::PeftAdapter::open(*config.tuning.adapter);
    frozen.lora = tuning::Lora::attach(*frozen.decoder, frozen.start->spec());
    frozen.start->check_complete(*frozen.lora);
  }
  for (const tensor::ParameterPtr& parameter : frozen.decoder->parameters()) {
    parameter->trainable = false;
  }
  return frozen;
}

std::string describe_method(const objective::ObjectiveConfig& config) {
  std::string name = config.method;
  for (char& c : name) {
    c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return config.loss.empty() ? name : fmt::format("{} ({})", name, fmt::join(config.loss, " + "));
}

}  // namespace

RunObjective::RunObjective(const RunConfig& config, Tuned& tuned, const optim::ShardGroups& groups)
    : text_(describe_method(config.objective)) {
  if (!objective::compares_answers(config.objective)) {
    objective_ = std::make_unique<objective::TokenLoss>();
    return;
  }
  if (objective::needs_reference(config.objective)) {
    load_reference(config, tuned, groups);
  }
  objective_ = std::make_unique<objective::Preference>(config.objective, reference_.get());
}

void RunObjective::load_reference(const RunConfig& config,
                                  Tuned& tuned,
                                  const optim::ShardGroups& groups) {
  if (!has_own_reference(config)) {
    reference_ = std::make_unique<objective::AdapterOff>(*tuned.decoder, *tuned.lora);
    text_ += " beside the base model (adapter off)";
    return;
  }
  const std::string path = config.objective.reference.value_or(config.model.path);
  other_ = build_frozen(config, path);
  placed_ = std::make_unique<optim::ShardedParameters>(other_.decoder->units(),
                                                       groups,
                                                       config.optim,
                                                       other_.decoder->dtype(),
                                                       other_.decoder->device());
  other_.decoder->set_hooks(placed_.get());
  model::ModelOptions options = config.model;
  options.path = path;
  const auto weights = model::open_weights(options, *other_.decoder);
  placed_->load(filler(config, other_, *weights));
  reference_ = std::make_unique<objective::OtherModel>(*other_.decoder);
  text_ +=
      fmt::format(" beside {}", config.objective.reference.value_or("a copy of the start model"));
}

}  // namespace kamerton::cli
