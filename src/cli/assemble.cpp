// SPDX-License-Identifier: Apache-2.0
#include "assemble.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/core/format.h"
#include "kamerton/tuning/packed_base.h"

namespace kamerton::cli {

namespace {

/// Heads that begin at random or at zero are trained beside any adapter.
void train_new_heads(const model::Decoder& decoder) {
  const model::DecoderConfig& config = decoder.config();
  for (const std::string& name : {std::string(model::kValueHead), config.names.head + ".weight"}) {
    const tensor::ParameterPtr head = decoder.find_parameter(name);
    if (head != nullptr && (name == model::kValueHead || config.score_head)) {
      head->trainable = true;
    }
  }
}

void refuse_unbuilt_dropout(const tuning::AdapterSpec& spec, const std::string& folder) {
  if (!spec.unbuilt_dropout.empty()) {
    throw core::Error(core::ErrorKind::Config,
                      {.where = "cli.assemble",
                       .what = folder + " cannot be trained further as it was: a dropout that is "
                                        "not built",
                       .got = fmt::format("{}", fmt::join(spec.unbuilt_dropout, ", ")),
                       .allowed = "0",
                       .hint = "set it to 0 in adapter_config.json to train without it"});
  }
}

}  // namespace

Tuned build_tuned(const RunConfig& config) {
  Tuned tuned;
  const bool adapts = tuning::is_adapter(config.tuning.method);
  model::DecoderConfig shape = model::read_config(config.model.path);
  tuning::AdapterSpec spec;
  if (adapts && config.tuning.adapter.has_value()) {
    tuned.start = tuning::PeftAdapter::open(*config.tuning.adapter);
    spec = tuned.start->spec();
    refuse_unbuilt_dropout(spec, *config.tuning.adapter);
  } else if (adapts) {
    spec = tuning::AdapterSpec::from(config.tuning);
  } else if (config.tuning.adapter.has_value()) {
    throw core::Error(core::ErrorKind::Config,
                      {.where = "cli.assemble",
                       .what = "tuning.adapter is for the methods that have one",
                       .got = "method " + config.tuning.method,
                       .hint = "tuning.method: lora, or merge first with kamerton adapter merge"});
  }
  tuned.decoder = std::make_unique<model::Decoder>(
      adapts ? tuning::prepare_config(shape, spec) : shape, config.model);
  if (!config.model.score_head) {
    model::require_tokens(tuned.decoder->config(), "cli.assemble");
  }
  if (adapts) {
    tuned.adapter = tuning::Adapter::attach(*tuned.decoder, spec);
    tuned.adapter->dropout_keys().seed = static_cast<uint64_t>(config.train.seed);
  }
  if (tuned.start.has_value()) {
    tuned.start->bind(*tuned.adapter);
  } else if (adapts) {
    tuning::require_used_settings(*tuned.adapter);
  }
  if (config.tuning.neftune_noise_alpha > 0) {
    tuned.noise = tuning::Neftune::install(*tuned.decoder,
                                           config.tuning.neftune_noise_alpha,
                                           static_cast<uint64_t>(config.train.seed));
  }
  train_new_heads(*tuned.decoder);
  tuning::freeze(*tuned.decoder, config.tuning.freeze);
  if (config.tuning.method == "half") {
    tuned.half.emplace(
        *tuned.decoder, config.tuning.half, static_cast<uint64_t>(config.train.seed));
    tuning::apply(tuned.half->draw(0), *tuned.decoder);
  }
  tuning::choose_packed(*tuned.decoder, config.tuning.quantize);
  if (config.tuning.quantize != "none" && tuning::packed_bytes(*tuned.decoder) == 0) {
    throw core::Error(core::ErrorKind::Config,
                      {.where = "cli.assemble",
                       .what = "tuning.quantize packs frozen weights, and none is frozen",
                       .got = "method " + config.tuning.method,
                       .hint = "tuning.quantize: none, or a method that freezes the base"});
  }
  if (count_parameters(*tuned.decoder).trainable == 0) {
    throw core::Error(core::ErrorKind::Config,
                      {.where = "cli.assemble",
                       .what = "nothing is left to train",
                       .hint = "more tuning.targets, a narrower tuning.exclude or tuning.freeze"});
  }
  return tuned;
}

tuning::ReadBase base_reader(const model::WeightSource& weights) {
  return [&weights](const tensor::Parameter& parameter) {
    at::Tensor whole = at::empty(parameter.shape, at::kFloat);
    weights.read(parameter, 0, whole.view({-1}));
    return whole;
  };
}

optim::ShardedParameters::Fill filler(const RunConfig& config,
                                      const Tuned& tuned,
                                      const model::WeightSource& weights) {
  const auto seed = static_cast<uint64_t>(config.train.seed);
  const auto wide = [&tuned, &weights, seed](
                        const tensor::Parameter& parameter, int64_t offset, at::Tensor out) {
    if (tuned.start.has_value() && tuned.start->holds(parameter)) {
      tuned.start->read(parameter, offset, out);
    } else if (parameter.adapter) {
      tuned.adapter->initialise(parameter, seed, offset, out, base_reader(weights));
    } else if (tuned.adapter.has_value() && tuned.adapter->changes_base(parameter)) {
      const at::Tensor whole = tuned.adapter->starting_base(parameter, seed, base_reader(weights));
      out.copy_(whole.view({-1}).narrow(0, offset, out.numel()));
    } else {
      weights.read(parameter, offset, out);
    }
  };
  return [&tuned, wide](const tensor::Parameter& parameter, int64_t offset, at::Tensor out) {
    if (!parameter.packed) {
      wide(parameter, offset, out);
      return;
    }
    const auto whole = [&wide](const tensor::Parameter& weight) {
      at::Tensor values = at::empty(weight.shape, at::kFloat);
      wide(weight, 0, values.view({-1}));
      return values;
    };
    out.copy_(tuning::pack(*tuned.decoder, parameter, whole).narrow(0, offset, out.numel()));
  };
}

bool has_own_reference(const RunConfig& config, const Tuned& tuned) {
  const bool switches_off = tuned.adapter.has_value() && tuned.adapter->can_switch_off() &&
                            !config.tuning.adapter.has_value();
  return (config.keep.replay.kl > 0 && !switches_off) ||
         (objective::needs_reference(config.objective) &&
          (config.objective.reference.has_value() || !switches_off));
}

ParameterCounts count_parameters(const model::Decoder& decoder) {
  ParameterCounts counts;
  for (const tensor::ParamUnit& unit : decoder.units()) {
    counts.trainable += unit.numel(true);
    counts.all += unit.numel(true) + unit.numel(false);
  }
  for (const model::Linear* linear : decoder.linears()) {
    counts.all += linear->packed == nullptr ? 0 : linear->weight->numel();
  }
  return counts;
}

namespace {

/// "lora r 16", "ia3", "half", "full".
std::string method_text(const Tuned& tuned) {
  if (!tuned.adapter.has_value()) {
    return tuned.half.has_value() ? "half" : "full";
  }
  const tuning::AdapterSpec& spec = tuned.adapter->spec();
  const core::Json* r = core::json_find(*spec.settings, "r");
  return r == nullptr ? spec.method : fmt::format("{} r {}", spec.method, r->dump());
}

}  // namespace

std::string describe(const Tuned& tuned) {
  const ParameterCounts counts = count_parameters(*tuned.decoder);
  return fmt::format("{}, {} parameters, {} trained ({}), {}",
                     tuned.decoder->config().architecture,
                     core::format_count(static_cast<double>(counts.all)),
                     core::format_count(static_cast<double>(counts.trainable)),
                     method_text(tuned),
                     tuned.decoder->dtype() == at::kBFloat16 ? "bf16 with fp32 masters" : "fp32") +
         (tuned.decoder->device().is_cpu() ? "" : ", on " + tuned.decoder->device().str());
}

std::unique_ptr<model::Decoder> load_for_inference(const std::string& model_dir,
                                                   const std::string& adapter_dir,
                                                   const std::string& dtype,
                                                   const std::string& device,
                                                   const std::string& pickle,
                                                   bool must_merge) {
  model::ModelOptions options;
  options.weights = pickle;
  options.allow_pickle = !pickle.empty();
  options.path = model_dir;
  options.dtype = dtype;
  options.device = device;
  std::optional<tuning::PeftAdapter> start;
  model::DecoderConfig shape = model::read_config(model_dir);
  if (!adapter_dir.empty()) {
    start = tuning::PeftAdapter::open(adapter_dir);
    shape = tuning::prepare_config(std::move(shape), start->spec());
  }
  auto decoder = std::make_unique<model::Decoder>(std::move(shape), options);
  if (!start.has_value()) {
    decoder->load_whole();
    return decoder;
  }
  tuning::Adapter adapter = tuning::Adapter::attach(*decoder, start->spec());
  start->bind(adapter);
  decoder->load_whole();
  const at::NoGradGuard no_grad;
  tuning::begin_base(*decoder, adapter);
  for (const tuning::AdapterEntry& entry : adapter.entries()) {
    start->read(*entry.parameter, 0, entry.parameter->value.detach().view({-1}));
  }
  if (must_merge || adapter.can_merge()) {
    adapter.merge();
  }
  return decoder;
}

}  // namespace kamerton::cli
