// SPDX-License-Identifier: Apache-2.0
#include "peft_config.h"

#include <algorithm>
#include <cmath>
#include <regex>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "kamerton/core/error.h"

#include "settings.h"

namespace kamerton::tuning {
namespace {

using core::Error;
using core::ErrorKind;
using core::Json;

[[noreturn]] void refuse_config(const std::string& origin,
                                const std::string& what,
                                const std::string& got,
                                const std::string& allowed) {
  throw Error(ErrorKind::Data,
              {.where = "tuning.peft_format",
               .what = what + " in " + origin,
               .got = got,
               .allowed = allowed});
}

/// These take a part out of the base at the start, which only their own run can say.
void refuse_unknown_start(const Json& config, const std::string& origin) {
  const Json* init = core::json_find(config, "init_lora_weights");
  if (init == nullptr || !init->is_string()) {
    return;
  }
  const auto way = init->get<std::string>();
  if (way != "gaussian" && way != "pissa" && way != "olora" && way != "eva" &&
      way != "orthogonal") {
    throw Error(
        ErrorKind::Data,
        {.where = "tuning.peft_format",
         .what = "the base that this adapter belongs to is not known: its start changed it, "
                 "by " +
                 origin,
         .got = "init_lora_weights: " + way,
         .allowed = "true, gaussian, pissa, olora, eva, orthogonal",
         .hint = "PEFT's save_pretrained(path_initial_model_for_weight_conversion=...) "
                 "writes it for the untouched base"});
  }
}

/// Keys whose effect this program would have to build; a neutral value is fine. (fan_in_fan_out
/// follows from the module's kind, as in PEFT, whatever the file says.)
void refuse_unknown_effects(const Json& config, const std::string& origin) {
  for (const char* key : {"lora_bias", "use_qalora", "use_bdlora"}) {
    const Json* value = core::json_find(config, key);
    if (value != nullptr && !(value->is_boolean() && !value->get<bool>())) {
      refuse_config(origin, fmt::format("'{}' is set", key), value->dump(), "false");
    }
  }
  for (const char* key : {"layer_replication",
                          "kasa_config",
                          "monteclora_config",
                          "target_parameters",
                          "arrow_config",
                          "alora_invocation_tokens"}) {
    const Json* value = core::json_find(config, key);
    if (value != nullptr && !value->empty()) {
      refuse_config(origin, fmt::format("'{}' is set", key), value->dump(), "null");
    }
  }
  const Json* sparse = core::json_find(config, "sparse");
  const Json* very_sparse = core::json_find(config, "very_sparse");
  const Json* saved = core::json_find(config, "save_projection");
  const bool random =
      (sparse != nullptr && *sparse == true) || (very_sparse != nullptr && *very_sparse == true);
  if (random && saved != nullptr && *saved == false) {
    refuse_config(origin,
                  "sparse random bases that are not in the file",
                  "save_projection: false",
                  "save_projection: true");
  }
  refuse_unknown_start(config, origin);
}

std::vector<std::string> read_names(const Json& config,
                                    const char* key,
                                    const std::string& origin) {
  const Json* found = core::json_find(config, key);
  if (found == nullptr) {
    return {};
  }
  if (found->is_string()) {
    const auto text = found->get<std::string>();
    return {text == "all-linear" ? text : "re:" + text};
  }
  if (!found->is_array()) {
    refuse_config(origin,
                  fmt::format("'{}' is of another type", key),
                  found->type_name(),
                  "a list of strings or a string");
  }
  std::vector<std::string> names;
  for (const Json& name : *found) {
    if (!name.is_string()) {
      refuse_config(
          origin, fmt::format("'{}' holds something else than names", key), name.dump(), "strings");
    }
    names.push_back(name.get<std::string>());
  }
  return names;
}

std::vector<int64_t> read_layers(const Json& config, const std::string& origin) {
  std::vector<int64_t> layers;
  if (const Json* found = core::json_find(config, "layers_to_transform"); found != nullptr) {
    for (const Json& layer : found->is_array() ? *found : Json::array({*found})) {
      if (!layer.is_number_integer()) {
        refuse_config(origin,
                      "'layers_to_transform' holds something else than numbers",
                      layer.dump(),
                      "layer numbers");
      }
      layers.push_back(layer.get<int64_t>());
    }
  }
  return layers;
}

AdapterSpec read_hub(const Json& config, const std::string& origin) {
  const Json& inner = config["config"];
  Json peft = {{"peft_type", "BOTTLENECK"}};
  for (const char* key : {"reduction_factor", "non_linearity", "scaling", "init_weights"}) {
    if (core::json_find(inner, key) != nullptr) {
      peft[key] = inner[key];
    }
  }
  const auto flag = [&](const char* key) { return core::json_bool(inner, key, origin); };
  peft["use_parallel_adapter"] = flag("is_parallel");
  peft["use_adapterp"] = !flag("is_parallel") && !flag("mh_adapter");
  const bool pfeiffer = peft["use_adapterp"].get<bool>();
  const bool known = flag("output_adapter") && !flag("ln_before") && !flag("ln_after") &&
                     flag("original_ln_before") == pfeiffer && !flag("phm_layer") &&
                     !flag("use_gating") && !flag("adapter_residual_before_ln");
  if (!known) {
    refuse_config(origin,
                  "a form of AdapterHub's that is not built",
                  inner.dump(),
                  "the forms seq_bn, double_seq_bn and par_bn");
  }
  return read_config(peft, origin);
}

/// Twice the rank with the same scale.
void double_rank(Json& settings) {
  settings["r"] = 2 * settings["r"].get<int64_t>();
  const double factor = settings["use_rslora"].get<bool>() ? std::sqrt(2.0) : 2.0;
  settings["lora_alpha"] = settings["lora_alpha"].get<double>() * factor;
  for (auto& [name, rank] : settings["rank_pattern"].items()) {
    rank = 2 * rank.get<int64_t>();
  }
  for (auto& [name, alpha] : settings["alpha_pattern"].items()) {
    alpha = alpha.get<double>() * factor;
  }
  settings["init_lora_weights"] = true;
}

Json names_json(const std::vector<std::string>& names) {
  if (names.empty()) {
    return nullptr;
  }
  if (names.size() == 1 && (names[0] == "all-linear" || names[0].starts_with("re:"))) {
    return names[0].starts_with("re:") ? names[0].substr(3) : names[0];
  }
  return names;
}

bool is_prompt(std::string_view peft_type) {
  return peft_type == "PROMPT_TUNING" || peft_type == "P_TUNING" || peft_type == "PREFIX_TUNING";
}

/// "boft_only": the biases of the targets, as PEFT names them after the type.
std::string only_name(const Method& method) {
  std::string name = std::string(method.peft_type) + "_only";
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) {
    return static_cast<char>(std::tolower(c));
  });
  return name;
}

}  // namespace

void check_patterns(const Json& settings, ErrorKind kind, const std::string& origin) {
  for (const char* key : {"rank_pattern", "alpha_pattern", "n_frequency_pattern"}) {
    if (!settings.contains(key) || !settings[key].is_object()) {
      continue;
    }
    const bool counts = std::string_view(key) != "alpha_pattern";
    for (const auto& [name, value] : settings[key].items()) {
      const bool kept = value.is_array() && kind == ErrorKind::Data;  // of AdaLoRA
      const bool number = value.is_number() && (!counts || value.is_number_integer());
      const double size = number ? value.get<double>() : 0;
      const bool fits = counts ? size >= 1 && size <= 65536 : std::isfinite(size) && size != 0;
      if (!kept && !fits) {
        throw Error(kind,
                    {.where = "tuning.peft_format",
                     .what = fmt::format("'{}.{}' is out of range in {}", key, name, origin),
                     .got = value.dump(),
                     .allowed = counts ? "a whole number from 1 to 65536" : "a number, not 0"});
      }
    }
  }
}

bool has_bias(const Method& method) {
  static const std::set<std::string_view> kTypes = {
      "LORA", "ADALORA", "VERA", "OFT", "BOFT", "HRA", "MISS", "FOURIERFT", "RANDLORA"};
  return kTypes.count(method.peft_type) != 0;
}

bool has_targets(const Method& method) {
  return !is_prompt(method.peft_type) && method.peft_type != "BOTTLENECK" &&
         method.peft_type != "PARTIAL";
}

bool is_hub_config(const Json& config) {
  const Json* inner = core::json_find(config, "config");
  return core::json_find(config, "peft_type") == nullptr && inner != nullptr &&
         inner->is_object() && core::json_find(*inner, "reduction_factor") != nullptr;
}

std::string name_of_hub(const std::string& name) {
  static const std::regex owner("_adapters\\.adapters\\.[^.]+\\.");
  static const std::regex first("adapter_down\\.0\\.");
  return "base_model.model." +
         std::regex_replace(std::regex_replace(name, owner, "_adapters."), first, "adapter_down.");
}

/// Dropout of ranks, modules or inputs that `method` has no setting for.
std::vector<std::string> unbuilt_dropout(const Method& method, const Json& config) {
  std::vector<std::string> found;
  for (const auto& [key, value] : config.items()) {
    const bool known = std::any_of(method.settings.begin(),
                                   method.settings.end(),
                                   [&key = key](const Setting& one) { return one.name == key; });
    if (key.ends_with("dropout") && !known && value.is_number() && value != 0) {
      found.push_back(fmt::format("{}: {}", key, value.dump()));
    }
  }
  return found;
}

AdapterSpec read_config(const Json& config, const std::string& origin) {
  if (is_hub_config(config)) {
    return read_hub(config, origin);
  }
  const std::string type = core::json_string(config, "peft_type", origin);
  const Method* method = find_peft_type(type, config);
  if (method == nullptr) {
    std::vector<std::string_view> known;
    for (const Method& one : methods()) {
      known.push_back(one.peft_type);
    }
    refuse_config(origin,
                  "this type of adapter is not known",
                  type,
                  fmt::format("{}", fmt::join(known, ", ")));
  }
  refuse_unknown_effects(config, origin);
  AdapterSpec spec;
  spec.method = method->name;
  spec.settings = settings_of(*method, config, origin);
  check_patterns(*spec.settings, ErrorKind::Data, origin);
  spec.targets = read_names(config, "target_modules", origin);
  if (spec.targets.empty()) {
    spec.targets = method->targets;
    if (!method->targets.empty()) {
      refuse_config(origin,
                    "'target_modules' is missing",
                    "none",
                    "a list of module names or one expression");
    }
  }
  spec.excluded = read_names(config, "exclude_modules", origin);
  spec.modules_to_save = read_names(config, "modules_to_save", origin);
  if (const Json* ties = core::json_find(config, "ensure_weight_tying"); ties != nullptr) {
    spec.keeps_tie = *ties == true;
  }
  spec.layers_to_transform = read_layers(config, origin);
  spec.unbuilt_dropout = unbuilt_dropout(*method, config);
  if (const Json* bias = core::json_find(config, "bias"); bias != nullptr) {
    spec.bias = bias->is_string() ? bias->get<std::string>() : bias->dump();
    spec.bias = spec.bias.ends_with("_only") ? "lora_only" : spec.bias;
    if (spec.bias != "none" && spec.bias != "all" && spec.bias != "lora_only") {
      refuse_config(
          origin, "'bias' is set to something unknown", spec.bias, "none, all, lora_only");
    }
  }
  return spec;
}

Json config_json(const AdapterSpec& spec,
                 const std::string& base_model,
                 bool transposed,
                 bool doubled) {
  const Method& method = find_method(spec.method);
  Json config = Json{{"base_model_name_or_path", base_model},
                     {"inference_mode", true},
                     {"peft_type", method.peft_type},
                     {"revision", nullptr},
                     {"task_type", "CAUSAL_LM"}};
  Json settings = *spec.settings;
  if (doubled) {
    double_rank(settings);
  }
  for (const Setting& setting : method.settings) {
    const bool ours = std::string_view(setting.name) == "freeze_a";
    if (!ours || settings[setting.name] != setting.value) {
      config[setting.name] = settings[setting.name];
    }
  }
  if (has_targets(method)) {
    config["modules_to_save"] =
        spec.modules_to_save.empty() ? Json(nullptr) : Json(spec.modules_to_save);
    config["target_modules"] = names_json(spec.targets);
    if (!spec.excluded.empty()) {
      config["exclude_modules"] = names_json(spec.excluded);
    }
  }
  if (has_bias(method)) {
    config["bias"] = spec.bias == "lora_only" ? only_name(method) : spec.bias;
  }
  if (method.peft_type == "LORA") {
    config["fan_in_fan_out"] = transposed;
    config["layers_pattern"] = nullptr;
    if (spec.keeps_tie) {
      config["ensure_weight_tying"] = true;
    }
  }
  if (!spec.layers_to_transform.empty()) {
    config["layers_to_transform"] = spec.layers_to_transform;
  }
  Json sorted = Json::object();  // PEFT sorts its keys
  std::vector<std::string> keys;
  for (const auto& [key, value] : config.items()) {
    keys.push_back(key);
  }
  std::sort(keys.begin(), keys.end());
  for (const std::string& key : keys) {
    sorted[key] = config[key];
  }
  return sorted;
}

}  // namespace kamerton::tuning
