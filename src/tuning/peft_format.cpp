// SPDX-License-Identifier: Apache-2.0
#include "kamerton/tuning/peft_format.h"

#include <cstring>
#include <map>
#include <optional>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/core/json.h"
#include "kamerton/storage/filesystem.h"

namespace kamerton::tuning {
namespace {

using core::Error;
using core::ErrorKind;
using core::Json;

constexpr const char* kPrefix = "base_model.model.";
constexpr uint64_t kMaxConfigBytes = 1 << 20;

[[noreturn]] void refuse(const std::string& origin,
                         const std::string& what,
                         const std::string& got,
                         const std::string& allowed) {
  throw Error(ErrorKind::Data,
              {.where = "tuning.peft_format",
               .what = what + " in " + origin,
               .got = got,
               .allowed = allowed});
}

/// Keys whose effect this program would have to build; a neutral value is fine. (fan_in_fan_out
/// follows from the module's kind, as in PEFT, whatever the file says.)
void refuse_unknown_effects(const Json& config, const std::string& origin) {
  for (const char* key : {"use_dora", "lora_bias", "use_qalora"}) {
    const Json* value = core::json_find(config, key);
    if (value != nullptr && !(value->is_boolean() && !value->get<bool>())) {
      refuse(origin, fmt::format("'{}' is set", key), value->dump(), "false");
    }
  }
  for (const char* key :
       {"modules_to_save", "trainable_token_indices", "layer_replication", "exclude_modules"}) {
    const Json* value = core::json_find(config, key);
    if (value != nullptr && !value->empty()) {
      refuse(origin, fmt::format("'{}' is set", key), value->dump(), "null");
    }
  }
  const Json* bias = core::json_find(config, "bias");
  if (bias != nullptr && *bias != "none") {
    refuse(origin, "'bias' is set", bias->dump(), "\"none\"");
  }
}

std::vector<std::string> read_targets(const Json& config, const std::string& origin) {
  const Json* targets = core::json_find(config, "target_modules");
  if (targets == nullptr) {
    refuse(
        origin, "'target_modules' is missing", "none", "a list of module names or one expression");
  }
  if (targets->is_string()) {
    const auto text = targets->get<std::string>();
    return {text == "all-linear" ? text : "re:" + text};
  }
  if (!targets->is_array()) {
    refuse(origin,
           "'target_modules' is of another type",
           targets->type_name(),
           "a list of strings or a string");
  }
  std::vector<std::string> names;
  for (const Json& target : *targets) {
    if (!target.is_string()) {
      refuse(origin, "'target_modules' holds something else than names", target.dump(), "strings");
    }
    names.push_back(target.get<std::string>());
  }
  return names;
}

template <class Value>
std::vector<std::pair<std::string, Value>> read_pattern(const Json& config,
                                                        const char* key,
                                                        const std::string& origin) {
  std::vector<std::pair<std::string, Value>> pattern;
  if (const Json* found = core::json_find(config, key); found != nullptr) {
    if (!found->is_object()) {
      refuse(origin, fmt::format("'{}' is of another type", key), found->type_name(), "an object");
    }
    for (const auto& [name, value] : found->items()) {
      if (!value.is_number()) {
        refuse(origin,
               fmt::format("'{}.{}' is of another type", key, name),
               value.type_name(),
               "a number");
      }
      pattern.emplace_back(name, value.template get<Value>());
    }
  }
  return pattern;
}

std::vector<int64_t> read_layers(const Json& config, const std::string& origin) {
  std::vector<int64_t> layers;
  if (const Json* found = core::json_find(config, "layers_to_transform"); found != nullptr) {
    for (const Json& layer : found->is_array() ? *found : Json::array({*found})) {
      if (!layer.is_number_integer()) {
        refuse(origin,
               "'layers_to_transform' holds something else than numbers",
               layer.dump(),
               "layer numbers");
      }
      layers.push_back(layer.get<int64_t>());
    }
  }
  return layers;
}

LoraSpec read_spec(const Json& config, const std::string& origin) {
  if (core::json_string(config, "peft_type", origin) != "LORA") {
    refuse(origin,
           "this type of adapter is not known",
           core::json_string(config, "peft_type", origin),
           "LORA");
  }
  refuse_unknown_effects(config, origin);
  LoraSpec spec;
  spec.targets = read_targets(config, origin);
  const auto number = [&](const char* key, double otherwise) {
    return core::json_find(config, key) == nullptr ? otherwise
                                                   : core::json_number(config, key, origin);
  };
  spec.r = core::json_find(config, "r") == nullptr ? 8 : core::json_int(config, "r", origin);
  spec.alpha = number("lora_alpha", 8);
  spec.dropout = number("lora_dropout", 0);
  spec.use_rslora = core::json_find(config, "use_rslora") != nullptr &&
                    core::json_bool(config, "use_rslora", origin);
  spec.rank_pattern = read_pattern<int64_t>(config, "rank_pattern", origin);
  spec.alpha_pattern = read_pattern<double>(config, "alpha_pattern", origin);
  spec.layers_to_transform = read_layers(config, origin);
  if (spec.r < 1) {
    refuse(origin, "'r' is out of range", std::to_string(spec.r), "1 or more");
  }
  return spec;
}

/// The key of a parameter in PEFT's file: "model...q_proj.lora_A.weight" ->
/// "base_model.model.model...q_proj.lora_A.weight".
std::string peft_key(const tensor::Parameter& parameter) {
  return kPrefix + parameter.name;
}

at::ScalarType scalar_type(storage::DType dtype, const std::string& origin) {
  switch (dtype) {
    case storage::DType::F32:
      return at::kFloat;
    case storage::DType::F16:
      return at::kHalf;
    case storage::DType::BF16:
      return at::kBFloat16;
    case storage::DType::F64:
      return at::kDouble;
    default:
      refuse(origin,
             "an adapter tensor is not floating point",
             std::string(storage::name_of(dtype)),
             "F32, F16, BF16, F64");
  }
}

template <class Value>
Json pattern_json(const std::vector<std::pair<std::string, Value>>& pattern) {
  Json object = Json::object();
  for (const auto& [name, value] : pattern) {
    object[name] = value;
  }
  return object;
}

Json config_json(const Lora& lora, const std::string& base_model) {
  const LoraSpec& spec = lora.spec();
  bool transposed = false;
  for (const LoraPair& pair : lora.pairs()) {
    transposed = transposed || pair.linear->transposed;
  }
  Json targets = Json::array();
  const bool one_text = spec.targets.size() == 1 &&
                        (spec.targets[0] == "all-linear" || spec.targets[0].starts_with("re:"));
  if (one_text) {
    targets = spec.targets[0].starts_with("re:") ? spec.targets[0].substr(3) : spec.targets[0];
  } else {
    targets = spec.targets;
  }
  const auto layers =
      spec.layers_to_transform.empty() ? Json(nullptr) : Json(spec.layers_to_transform);
  return Json{{"alpha_pattern", pattern_json(spec.alpha_pattern)},
              {"base_model_name_or_path", base_model},
              {"bias", "none"},
              {"fan_in_fan_out", transposed},
              {"inference_mode", true},
              {"init_lora_weights", true},
              {"layers_pattern", nullptr},
              {"layers_to_transform", layers},
              {"lora_alpha", spec.alpha},
              {"lora_dropout", spec.dropout},
              {"modules_to_save", nullptr},
              {"peft_type", "LORA"},
              {"r", spec.r},
              {"rank_pattern", pattern_json(spec.rank_pattern)},
              {"revision", nullptr},
              {"target_modules", targets},
              {"task_type", "CAUSAL_LM"},
              {"use_dora", false},
              {"use_rslora", spec.use_rslora}};
}

}  // namespace

PeftAdapter PeftAdapter::open(const std::filesystem::path& folder) {
  PeftAdapter adapter;
  const auto config_path = folder / "adapter_config.json";
  const std::string text = storage::posix_filesystem().read_file(config_path, kMaxConfigBytes);
  const Json config = core::parse_json(text, config_path.string());
  adapter.spec_ = read_spec(config, config_path.string());
  if (const Json* base = core::json_find(config, "base_model_name_or_path");
      base != nullptr && base->is_string()) {
    adapter.base_model_ = base->get<std::string>();
  }
  adapter.file_ = std::make_shared<storage::SafetensorsFile>(
      storage::SafetensorsFile::open(folder / "adapter_model.safetensors"));
  return adapter;
}

void PeftAdapter::read(const tensor::Parameter& parameter, int64_t offset, at::Tensor out) const {
  const std::string origin = file_->path().string();
  const storage::TensorEntry* entry = file_->find(peft_key(parameter));
  if (entry == nullptr) {
    refuse(origin,
           "an adapter tensor is missing",
           "no " + peft_key(parameter),
           "one for every targeted module");
  }
  if (entry->shape != parameter.shape) {
    refuse(origin,
           "the shape of '" + entry->name + "' does not fit the model",
           fmt::format("[{}]", fmt::join(entry->shape, ", ")),
           fmt::format("[{}]", fmt::join(parameter.shape, ", ")));
  }
  const at::ScalarType type = scalar_type(entry->dtype, origin);
  at::Tensor stored = at::empty({out.numel()}, type);
  const size_t width = storage::size_of(entry->dtype);
  file_->file().read(entry->offset + static_cast<size_t>(offset) * width,
                     std::span(static_cast<std::byte*>(stored.mutable_data_ptr()),
                               static_cast<size_t>(out.numel()) * width));
  if (!at::isfinite(stored).all().item<bool>()) {
    refuse(origin, "a value is not finite", entry->name, "finite numbers");
  }
  out.copy_(stored);
}

void PeftAdapter::check_complete(const Lora& lora) const {
  std::map<std::string, bool> wanted;
  for (const LoraPair& pair : lora.pairs()) {
    wanted[peft_key(*pair.a)] = false;
    wanted[peft_key(*pair.b)] = false;
  }
  for (const storage::TensorEntry& entry : file_->entries()) {
    const auto found = wanted.find(entry.name);
    if (found == wanted.end()) {
      refuse(file_->path().string(),
             "a tensor has no place in this model",
             entry.name,
             "LoRA tensors of the targeted modules");
    }
    found->second = true;
  }
  for (const auto& [name, present] : wanted) {
    if (!present) {
      refuse(file_->path().string(),
             "an adapter tensor is missing",
             "no " + name,
             "one for every targeted module");
    }
  }
}

void write_peft(const std::filesystem::path& folder,
                const Lora& lora,
                const std::string& base_model,
                const Fetch& fetch,
                bool writes) {
  std::vector<tensor::Parameter*> parameters;
  for (const LoraPair& pair : lora.pairs()) {
    parameters.push_back(pair.a.get());
    parameters.push_back(pair.b.get());
  }
  std::optional<storage::SafetensorsWriter> writer;
  if (writes) {
    storage::posix_filesystem().make_directories(folder);
    std::vector<storage::TensorDeclaration> declarations;
    for (const tensor::Parameter* parameter : parameters) {
      declarations.push_back({peft_key(*parameter), storage::DType::F32, parameter->shape});
    }
    writer.emplace(folder / "adapter_model.safetensors", declarations);
  }
  for (const tensor::Parameter* parameter : parameters) {
    const at::Tensor whole = fetch(*parameter);
    if (!writes) {
      continue;
    }
    if (whole.numel() != parameter->numel()) {
      throw Error(ErrorKind::Internal,
                  {.where = "tuning.peft_format",
                   .what = "an adapter tensor is not whole",
                   .got = parameter->name});
    }
    const at::Tensor bytes = whole.detach().to(at::kCPU, at::kFloat).contiguous();
    writer->write(peft_key(*parameter),
                  std::as_bytes(std::span(bytes.const_data_ptr<float>(),
                                          static_cast<size_t>(bytes.numel()))));
  }
  if (writes) {
    // The tensors first, the config last: a folder with a config is complete.
    writer->finish();
    storage::write_file_atomic(storage::posix_filesystem(),
                               folder / "adapter_config.json",
                               config_json(lora, base_model).dump(2) + "\n");
  }
}

}  // namespace kamerton::tuning
