// SPDX-License-Identifier: Apache-2.0
// kamerton adapter merge: a base and its adapters become one model, a tensor at a time.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/model/weights.h"
#include "kamerton/storage/digest.h"
#include "kamerton/storage/filesystem.h"
#include "kamerton/tuning/peft_format.h"

#include "command.h"

namespace kamerton::cli {
namespace {

namespace fs = std::filesystem;
using core::Error;
using core::ErrorKind;

constexpr const char* kRecord = "merged_adapters.json";
constexpr uint64_t kRecordBytes = 1 << 20;

/// An adapter on a decoder of its own, which has no memory: only names and shapes.
struct Layer {
  tuning::PeftAdapter file;
  std::unique_ptr<model::Decoder> decoder;
  tuning::Adapter adapter;
  std::string digest;

  static Layer open(const std::string& folder, const model::ModelOptions& options) {
    tuning::PeftAdapter file = tuning::PeftAdapter::open(folder);
    auto decoder = std::make_unique<model::Decoder>(
        tuning::prepare_config(model::read_config(options.path), file.spec()), options);
    tuning::Adapter adapter = tuning::Adapter::attach(*decoder, file.spec());
    file.bind(adapter);
    if (!adapter.can_merge()) {
      throw Error(ErrorKind::Config,
                  {.where = "cli.adapter",
                   .what = "an adapter of this kind cannot be merged",
                   .got = fmt::format("{} ({})", folder, file.spec().method)});
    }
    const storage::Digest digest = storage::digest_of_file(file.file().path());
    return {std::move(file), std::move(decoder), std::move(adapter), storage::to_hex(digest)};
  }

  at::Tensor own(const tensor::Parameter& parameter) const {
    at::Tensor values = at::empty(parameter.shape, at::kFloat);
    file.read(parameter, 0, values.view({-1}));
    return values;
  }
  /// The base parameter of this name with the adapter in it.
  at::Tensor merged(const std::string& name, const at::Tensor& whole) const {
    const tensor::ParameterPtr mine = decoder->find_parameter(name);
    if (mine == nullptr) {
      return whole;
    }
    const auto base = [&whole](const tensor::Parameter&) { return whole.clone(); };
    const at::Tensor start = file.holds(*mine)             ? own(*mine)
                             : adapter.changes_base(*mine) ? adapter.starting_base(*mine, 0, base)
                                                           : whole;
    return adapter.merged(
        *mine, start, [this](const tensor::Parameter& parameter) { return own(parameter); });
  }
};

/// What a model folder says that it has in it.
core::Json record_of(const fs::path& model) {
  return fs::exists(model / kRecord)
             ? core::parse_json(
                   storage::posix_filesystem().read_file(model / kRecord, kRecordBytes), kRecord)
             : core::Json{{"base_model", model.string()}, {"adapters", core::Json::array()}};
}

/// Adds the adapter to the record; refuses one that is there.
void note(core::Json& record, const Layer& layer, const std::string& folder) {
  for (const core::Json& one : record["adapters"]) {
    if (core::json_string(one, "digest", kRecord) == layer.digest) {
      throw Error(ErrorKind::Config,
                  {.where = "cli.adapter",
                   .what = "this adapter is in the model already",
                   .got = folder,
                   .hint = "the untouched base: " + record["base_model"].get<std::string>()});
    }
  }
  record["adapters"].push_back(
      {{"folder", folder}, {"method", layer.file.spec().method}, {"digest", layer.digest}});
}

at::ScalarType type_of(const std::string& name, at::ScalarType stored) {
  if (name != "auto" && name != "bf16" && name != "fp32") {
    throw Error(ErrorKind::Config,
                {.where = "cli.adapter",
                 .what = "--dtype is not known",
                 .got = name,
                 .allowed = "auto, bf16, fp32"});
  }
  return name == "auto" ? stored : name == "bf16" ? at::kBFloat16 : at::kFloat;
}

void refuse_existing(const fs::path& to, bool force) {
  if (!force && fs::exists(to) && !fs::is_empty(to)) {
    throw Error(ErrorKind::Output,
                {.where = "cli.adapter",
                 .what = "the folder is not empty",
                 .got = to.string(),
                 .hint = "--force, or another folder"});
  }
}

int run_merge(const po::variables_map& arguments, comm::Session*) {
  static const Command self = adapter_merge_command();
  model::ModelOptions options;
  options.path = required(arguments, "model", self);
  options.dtype = "fp32";
  options.device = "cpu";
  const fs::path to = required(arguments, "to", self);
  const auto folders = value_or<std::vector<std::string>>(arguments, "adapter", {});
  if (folders.empty()) {
    required(arguments, "adapter", self);
  }
  refuse_existing(to, arguments.count("force") != 0);
  core::Json record = record_of(options.path);
  std::vector<Layer> layers;
  model::DecoderConfig shape = model::read_config(options.path);
  for (const std::string& folder : folders) {
    layers.push_back(Layer::open(folder, options));
    note(record, layers.back(), folder);
    shape = tuning::prepare_config(std::move(shape), layers.back().file.spec());
  }
  const model::Decoder decoder(shape, options);
  const auto weights = model::open_weights(options, decoder);
  const auto value = [&](const tensor::Parameter& parameter) {
    at::Tensor whole = at::empty(parameter.shape, at::kFloat);
    weights->read(parameter, 0, whole.view({-1}));
    for (const Layer& layer : layers) {
      whole = layer.merged(parameter.name, whole);
    }
    return whole;
  };
  for (const tensor::ParameterPtr& parameter : decoder.base_parameters()) {
    value(*parameter);  // finite, or nothing is written
  }
  const at::ScalarType dtype = type_of(arguments["dtype"].as<std::string>(), shape.stored_dtype);
  model::save_model(to.string(), decoder, value, {.dtype = dtype, .copy_from = options.path});
  storage::write_file_atomic(storage::posix_filesystem(), to / kRecord, record.dump(2) + "\n");
  fmt::print("{}\n", to.string());
  return 0;
}

}  // namespace

Command adapter_merge_command() {
  return {.name = "adapter merge",
          .summary = "a base model and its adapters become one model",
          .usage = "kamerton adapter merge --model DIR --adapter DIR [--adapter DIR]... --to DIR",
          .description =
              "In fp32, rounded once to --dtype; one tensor is in memory at a time. The base stays "
              "as it is. The new folder notes what\n"
              "is in it, and the same adapter is not merged twice. Nothing is written when a value "
              "is not finite.\n\nExample:\n"
              "  kamerton adapter merge --model models/SmolLM2-135M-Instruct --adapter "
              "runs/quickstart/adapter --to models/tickets",
          .add_options =
              [](po::options_description& options, po::positional_options_description&) {
                options.add_options()("model,m", po::value<std::string>(), "the base model")(
                    "adapter,a",
                    po::value<std::vector<std::string>>(),
                    "adapters, merged one after the other")(
                    "to", po::value<std::string>(), "the folder to write")(
                    "dtype",
                    po::value<std::string>()->default_value("auto"),
                    "auto (as the base), bf16 or fp32")("force",
                                                        "write into a folder that is not empty");
              },
          .run = run_merge};
}

}  // namespace kamerton::cli
