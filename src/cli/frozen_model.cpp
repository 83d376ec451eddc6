// SPDX-License-Identifier: Apache-2.0
#include "frozen_model.h"

namespace kamerton::cli {

FrozenModel::FrozenModel(const RunConfig& config,
                         const std::string& path,
                         bool with_adapter,
                         const optim::ShardGroups& groups) {
  model::ModelOptions options = config.model;
  options.path = path;
  options.activation_checkpointing = "none";
  options.random_init = options.random_init && path == config.model.path;
  options.score_head = options.value_head = false;
  model::DecoderConfig shape = model::read_config(path);
  if (with_adapter && config.tuning.adapter.has_value()) {
    tuned_.start = tuning::PeftAdapter::open(*config.tuning.adapter);
    shape = tuning::prepare_config(std::move(shape), tuned_.start->spec());
  }
  tuned_.decoder = std::make_unique<model::Decoder>(std::move(shape), options);
  if (tuned_.start.has_value()) {
    tuned_.adapter = tuning::Adapter::attach(*tuned_.decoder, tuned_.start->spec());
    tuned_.start->bind(*tuned_.adapter);
  }
  for (const tensor::ParameterPtr& parameter : tuned_.decoder->parameters()) {
    parameter->trainable = false;
  }
  placed_ = std::make_unique<optim::ShardedParameters>(tuned_.decoder->units(),
                                                       groups,
                                                       config.optim,
                                                       tuned_.decoder->dtype(),
                                                       tuned_.decoder->device());
  tuned_.decoder->set_hooks(placed_.get());
  const auto weights = model::open_weights(options, *tuned_.decoder);
  placed_->load(filler(config, tuned_, *weights));
}

}  // namespace kamerton::cli
