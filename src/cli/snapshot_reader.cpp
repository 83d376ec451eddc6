// SPDX-License-Identifier: Apache-2.0
#include "snapshot_reader.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "kamerton/checkpoint/store.h"
#include "kamerton/core/error.h"
#include "kamerton/core/format.h"

#include "saved_weights.h"

namespace kamerton::cli {
namespace {

namespace fs = std::filesystem;
using core::Error;
using core::ErrorKind;

/// A checkpoint on disk: the folder of all checkpoints and the step.
struct Place {
  fs::path checkpoints;
  int64_t step = 0;
};

checkpoint::Store open_store(const fs::path& folder) {
  checkpoint::StoreOptions options;
  options.read_only = true;
  return {folder, comm::Group(), options};
}

/// path: a run's folder, its checkpoints folder, or one checkpoint.
Place find_checkpoint(const fs::path& path) {
  const fs::path clean = path.has_filename() ? path : path.parent_path();
  if (const auto step = checkpoint::Store::step_of(clean.filename().string()); step.has_value()) {
    return {clean.parent_path().empty() ? fs::path(".") : clean.parent_path(), *step};
  }
  const fs::path folder = fs::is_directory(clean / "checkpoints") ? clean / "checkpoints" : clean;
  const auto latest = fs::is_directory(folder) ? open_store(folder).latest() : std::nullopt;
  if (!latest.has_value()) {
    throw Error(ErrorKind::Data,
                {.where = "cli.checkpoint",
                 .what = "there is no complete checkpoint",
                 .got = path.string(),
                 .allowed = "a run's folder or its checkpoints/step-N",
                 .hint = "ls " + folder.string()});
  }
  return {folder, *latest};
}

/// The run's configuration as it was saved.
RunConfig saved_config(const core::Json& extra, const std::string& base) {
  RunConfig config;
  config::Document::from_text(core::json_string(extra, "config_yaml", "checkpoint"),
                              "the checkpoint's configuration")
      .fill(config);
  if (!base.empty()) {
    config.model.path = base;
  }
  derive(config);
  return config;
}

/// The decoder with the trained weights of a checkpoint, or their moving average, whole, in fp32.
Tuned load_tuned(const Place& place, const RunConfig& saved, bool average = false) {
  RunConfig config = saved;
  config.model.dtype = "fp32";
  config.model.activation_checkpointing = "none";
  config.tuning.quantize = "none";
  Tuned tuned = build_tuned(config);
  tensor::place_whole(tuned.decoder->units(), tuned.decoder->dtype(), tuned.decoder->device());
  const at::NoGradGuard no_grad;
  const auto weights = model::open_weights(config.model, *tuned.decoder);
  const optim::ShardedParameters::Fill fill = filler(config, tuned, *weights);
  const checkpoint::Store store = open_store(place.checkpoints);
  const SavedWeights saved_weights(store, place.step, average);
  std::vector<checkpoint::Slice> slices;
  std::vector<std::pair<at::Tensor, at::Tensor>> copies;  // on a device, in bf16: memory, value
  for (const tensor::ParameterPtr& parameter : tuned.decoder->parameters()) {
    const at::Tensor value = parameter->value.detach();
    const std::optional<SavedWeights::Saved> found = saved_weights.find(*parameter, value);
    if (!found.has_value()) {
      fill(*parameter, 0, value.view({-1}));
      continue;
    }
    if (!found->memory.is_same(value)) {
      copies.emplace_back(found->memory, value);
    }
    slices.push_back(found->slice);
  }
  store.read(place.step, slices);
  for (const auto& [memory, value] : copies) {
    value.copy_(memory);
  }
  return tuned;
}

at::Tensor whole_value(const tensor::Parameter& parameter) {
  return parameter.value.detach();
}

}  // namespace

InferenceModel load_model(const po::variables_map& arguments, const Command& command) {
  if (arguments.count("checkpoint") == 0) {
    const std::string folder = required(arguments, "model", command);
    return {load_for_inference(folder,
                               value_or<std::string>(arguments, "adapter", ""),
                               arguments["dtype"].as<std::string>(),
                               arguments["device"].as<std::string>()),
            folder};
  }
  if (arguments.count("adapter") != 0) {
    throw Error(ErrorKind::Config,
                {.where = "cli." + command.name,
                 .what = "--checkpoint and --adapter exclude each other",
                 .allowed = "one of them"});
  }
  const Place place = find_checkpoint(arguments["checkpoint"].as<std::string>());
  RunConfig config = saved_config(open_store(place.checkpoints).read_extra(place.step),
                                  value_or<std::string>(arguments, "model", ""));
  config.model.device = arguments["device"].as<std::string>();
  Tuned tuned = load_tuned(place, config);
  if (tuned.adapter.has_value() && tuned.adapter->can_merge()) {
    tuned.adapter->merge();
  }
  return {std::move(tuned.decoder), config.model.path};
}

SavedRun read_saved_run(const fs::path& checkpoint, const std::string& base) {
  const Place place = find_checkpoint(checkpoint);
  checkpoint::Store store = open_store(place.checkpoints);
  RunConfig config = saved_config(store.read_extra(place.step), base);
  return {std::move(store), place.step, std::move(config)};
}

void export_checkpoint(const fs::path& checkpoint,
                       const fs::path& to,
                       const ExportOptions& options) {
  const Place place = find_checkpoint(checkpoint);
  RunConfig config =
      saved_config(open_store(place.checkpoints).read_extra(place.step), options.base);
  config.model.device = "cpu";  // nothing is computed
  Tuned tuned = load_tuned(place, config, options.average);
  if (tuned.adapter.has_value() && !options.merge) {
    const auto base = model::open_weights(config.model, *tuned.decoder);
    tuning::write_peft(to,
                       *tuned.adapter,
                       config.model.path,
                       whole_value,
                       true,
                       {static_cast<uint64_t>(config.train.seed), base_reader(*base)});
    return;
  }
  if (tuned.adapter.has_value()) {
    tuned.adapter->merge();
  }
  model::save_model(
      to.string(), *tuned.decoder, {.dtype = options.dtype, .copy_from = config.model.path});
}

bool is_checkpoint(const fs::path& path) {
  try {
    find_checkpoint(path);
    return true;
  } catch (const Error&) {
    return false;
  }
}

void inspect_checkpoint(const fs::path& path, bool tensors, bool verify) {
  const Place place = find_checkpoint(path);
  const checkpoint::Store store = open_store(place.checkpoints);
  const checkpoint::Contents contents = store.contents(place.step);
  const core::Json extra = store.read_extra(place.step);
  const auto row = [](const char* name, const auto& value) {
    fmt::print("{:<18}{}\n", name, value);
  };
  row("checkpoint", (place.checkpoints / checkpoint::Store::folder_name(place.step)).string());
  row("step", fmt::format("{} of {}", contents.step, extra["total_steps"].dump()));
  row("method", extra["method"].dump());
  row("base model", extra["base_model"].dump());
  row("saved by",
      fmt::format("kamerton {} on {} rank(s)", contents.program_version, contents.world_size));
  row("size",
      fmt::format("{} in {} file(s), {} tensors",
                  core::format_bytes(static_cast<uint64_t>(contents.bytes)),
                  contents.files.size(),
                  contents.tensors.size()));
  if (tensors) {
    for (const checkpoint::TensorInfo& tensor : contents.tensors) {
      fmt::print("  {:<72}{:<6}[{}]\n",
                 tensor.name,
                 storage::name_of(tensor.dtype),
                 fmt::join(tensor.shape, ", "));
    }
  }
  if (verify) {
    store.verify(place.step);
    row("digests", "all files are as they were written");
  }
}

}  // namespace kamerton::cli
