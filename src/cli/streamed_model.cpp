// SPDX-License-Identifier: Apache-2.0
#include "streamed_model.h"

#include <ATen/ATen.h>

#include "kamerton/checkpoint/store.h"
#include "kamerton/core/error.h"

#include "assemble.h"
#include "saved_weights.h"
#include "snapshot_reader.h"

namespace kamerton::cli {
namespace {

at::Tensor whole_of(const model::WeightSource& source, const tensor::Parameter& parameter) {
  at::Tensor values = at::empty(parameter.shape, at::kFloat);
  source.read(parameter, 0, values.view({-1}));
  return values;
}

/// Everything that a fetch reads from, kept alive by it.
struct CheckpointSource {
  checkpoint::Store store;
  int64_t step;
  RunConfig config;
  Tuned tuned;
  std::unique_ptr<model::WeightSource> base;
  SavedWeights saved;

  /// As it is in the checkpoint, or as the run started with it; fp32.
  at::Tensor value(const tensor::Parameter& parameter) const {
    const std::optional<SavedWeights::Saved> found = saved.find(parameter);
    if (!found.has_value()) {
      at::Tensor values = at::empty(parameter.shape, at::kFloat);
      filler(config, tuned, *base)(parameter, 0, values.view({-1}));
      return values;
    }
    store.read(step, {found->slice});
    return found->memory.to(at::kFloat);
  }

  at::Tensor fetch(const tensor::Parameter& parameter) const {
    const at::Tensor whole = value(parameter);
    return !tuned.adapter.has_value()
               ? whole
               : tuned.adapter->merged(
                     parameter, whole, [this](const tensor::Parameter& own) { return value(own); });
  }
};

}  // namespace

StreamedModel stream_folder(const std::string& folder) {
  model::ModelOptions options;
  options.path = folder;
  options.dtype = "fp32";
  options.device = "cpu";
  StreamedModel streamed{
      std::make_shared<model::Decoder>(model::read_config(folder), options), folder, {}};
  std::shared_ptr<model::WeightSource> source = model::open_weights(options, *streamed.decoder);
  streamed.fetch = [source](const tensor::Parameter& parameter) {
    return whole_of(*source, parameter);
  };
  return streamed;
}

StreamedModel stream_checkpoint(const std::filesystem::path& checkpoint,
                                const std::string& base,
                                bool average) {
  SavedRun saved = read_saved_run(checkpoint, base);
  saved.config.model.dtype = "fp32";
  saved.config.model.device = "cpu";
  saved.config.model.activation_checkpointing = "none";
  saved.config.tuning.quantize = "none";
  Tuned tuned = build_tuned(saved.config);
  auto weights = model::open_weights(saved.config.model, *tuned.decoder);
  if (tuned.adapter.has_value() && !tuned.adapter->can_merge()) {
    throw core::Error(core::ErrorKind::Config,
                      {.where = "cli.export",
                       .what = "an adapter of this kind cannot become a part of the weights",
                       .got = tuned.adapter->spec().method,
                       .hint = "export without --merge"});
  }
  SavedWeights saved_weights(saved.store, saved.step, average);
  auto source = std::make_shared<CheckpointSource>(CheckpointSource{std::move(saved.store),
                                                                    saved.step,
                                                                    saved.config,
                                                                    std::move(tuned),
                                                                    std::move(weights),
                                                                    std::move(saved_weights)});
  // The decoder lives as long as its source.
  return {std::shared_ptr<model::Decoder>(source, source->tuned.decoder.get()),
          saved.config.model.path,
          [source](const tensor::Parameter& parameter) { return source->fetch(parameter); }};
}

}  // namespace kamerton::cli
