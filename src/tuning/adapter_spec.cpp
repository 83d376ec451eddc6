// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <regex>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "kamerton/config/load.h"
#include "kamerton/core/error.h"

#include "method.h"
#include "patterns.h"
#include "peft_config.h"
#include "settings.h"

namespace kamerton::tuning {
namespace {

using core::Error;
using core::ErrorKind;
using core::Json;

/// "EXPRESSION=NUMBER" -> {EXPRESSION: NUMBER}
Json pattern_of(const std::vector<std::string>& lines, const char* key) {
  Json pattern = Json::object();
  for (const std::string& line : lines) {
    const size_t at = line.rfind('=');
    char* end = nullptr;
    const double value = at == std::string::npos ? 0 : std::strtod(line.c_str() + at + 1, &end);
    const bool rank = std::string_view(key) == "rank_pattern";
    const bool fits =
        value > 0 && (rank ? value <= 4096 && value == std::floor(value) : std::isfinite(value));
    if (at == std::string::npos || end == line.c_str() + at + 1 || *end != '\0' || !fits) {
      throw Error(ErrorKind::Config,
                  {.where = "tuning.adapter",
                   .what = fmt::format("tuning.lora.{} holds something else", key),
                   .got = "'" + line + "'",
                   .allowed = rank ? "EXPRESSION=NUMBER, a whole number from 1 to 4096"
                                   : "EXPRESSION=NUMBER with a number above 0"});
    }
    compile(line.substr(0, at));
    if (rank) {
      pattern[line.substr(0, at)] = static_cast<int64_t>(value);
    } else {
      pattern[line.substr(0, at)] = value;
    }
  }
  return pattern;
}

void take_lora(const LoraConfig& config, Json& settings) {
  settings["r"] = config.r;
  settings["lora_alpha"] = config.alpha;
  settings["lora_dropout"] = config.dropout;
  settings["use_rslora"] = config.use_rslora;
  settings["use_dora"] = config.use_dora;
  settings["freeze_a"] = config.freeze_a;
  settings["init_lora_weights"] = config.init == "default" ? Json(true) : Json(config.init);
  settings["rank_pattern"] = pattern_of(config.rank_pattern, "rank_pattern");
  settings["alpha_pattern"] = pattern_of(config.alpha_pattern, "alpha_pattern");
}

/// A new adapter starts in a way that is built; a file may have been started in others.
void check_start(const Json& init) {
  static const std::vector<std::string> kWays = {"gaussian", "pissa", "olora"};
  const bool plain = init.is_boolean() && init.get<bool>();
  if (!plain && (!init.is_string() ||
                 std::find(kWays.begin(), kWays.end(), init.get<std::string>()) == kWays.end())) {
    throw Error(ErrorKind::Config,
                {.where = "tuning.lora",
                 .what = "this way to start an adapter is not built",
                 .got = "init_lora_weights: " + init.dump(),
                 .allowed = fmt::format("true, {}", fmt::join(kWays, ", ")),
                 .hint = init.is_string() ? config::nearest(init.get<std::string>(), kWays) : ""});
  }
}

std::vector<int64_t> layer_numbers(const std::vector<std::string>& texts) {
  std::vector<int64_t> numbers;
  for (const std::string& text : texts) {
    if (text.empty() || text.size() > 6 ||
        text.find_first_not_of("0123456789") != std::string::npos) {
      throw Error(ErrorKind::Config,
                  {.where = "tuning.adapter",
                   .what = "tuning.layers holds something else than numbers of layers",
                   .got = "'" + text + "'",
                   .allowed = "0, 1, ..."});
    }
    numbers.push_back(std::stoll(text));
  }
  return numbers;
}

}  // namespace

std::regex compile(const std::string& expression) {
  try {
    return std::regex(expression);
  } catch (const std::regex_error& error) {
    throw Error(ErrorKind::Config,
                {.where = "tuning.adapter",
                 .what = "not a regular expression",
                 .got = "'" + expression + "'",
                 .allowed = "ECMAScript syntax",
                 .hint = error.what()});
  }
}

bool module_ends_with(const std::string& module, const std::string& name) {
  return module == name || (module.size() > name.size() && module.ends_with(name) &&
                            module[module.size() - name.size() - 1] == '.');
}

int64_t layer_of(const std::string& module) {
  std::smatch match;
  static const std::regex number("\\.(\\d+)(\\.|$)");
  return std::regex_search(module, match, number) ? std::stoll(match[1]) : -1;
}

bool any_names(const std::vector<std::string>& names, const std::string& module) {
  return std::any_of(names.begin(), names.end(), [&](const std::string& name) {
    return name.starts_with("re:") ? std::regex_match(module, compile(name.substr(3)))
                                   : name != "all-linear" && module_ends_with(module, name);
  });
}

namespace {

/// Excluded, or part of a module that is trained whole (as in PEFT).
bool stays(const AdapterSpec& spec, const std::string& module) {
  const std::string dotted = "." + module + ".";
  return any_names(spec.excluded, module) ||
         std::any_of(spec.modules_to_save.begin(),
                     spec.modules_to_save.end(),
                     [&](const std::string& saved) {
                       return dotted.find("." + saved + ".") != std::string::npos;
                     });
}

}  // namespace

bool names_module(const AdapterSpec& spec, const std::string& module) {
  return any_names(spec.targets, module) && !stays(spec, module);
}

bool in_chosen_layer(const AdapterSpec& spec, const std::string& module) {
  const auto& layers = spec.layers_to_transform;
  return layers.empty() ||
         std::find(layers.begin(), layers.end(), layer_of(module)) != layers.end();
}

double pattern_value(const Json& pattern, const std::string& module, double otherwise) {
  for (const auto& [expression, value] : pattern.items()) {
    if (std::regex_match(module, compile("(.*\\.)?(" + expression + ")$"))) {
      return value.get<double>();
    }
  }
  return otherwise;
}

bool AdapterSpec::targets_module(const std::string& module) const {
  const bool all = std::find(targets.begin(), targets.end(), "all-linear") != targets.end();
  return in_chosen_layer(*this, module) &&
         ((all && !module_ends_with(module, "lm_head") && !stays(*this, module)) ||
          names_module(*this, module));
}

bool AdapterSpec::unties_head(const model::DecoderConfig& config) const {
  const auto saves = [this](const std::string& module) {
    return std::any_of(modules_to_save.begin(), modules_to_save.end(), [&](const auto& name) {
      return module_ends_with(module, name);
    });
  };
  return config.tied_head && !keeps_tie &&
         (saves(config.names.head) || saves("lm_head") || saves(config.names.embedding));
}

model::DecoderConfig prepare_config(model::DecoderConfig config, const AdapterSpec& spec) {
  if (spec.unties_head(config)) {
    config.tied_head = false;
    config.head_from_embedding = true;
  }
  return config;
}

namespace {

/// A key without effect: one of the others is meant.
void refuse_unused(const char* key, const TuningConfig& config, const std::string& allowed) {
  throw Error(ErrorKind::Config,
              {.where = "tuning.config",
               .what = fmt::format("tuning.{} does not go with tuning.method: {}, which has no use "
                                   "for it",
                                   key,
                                   config.method),
               .got = "both",
               .allowed = allowed});
}

}  // namespace

void refuse_unused(const TuningConfig& config) {
  const bool adapts = is_adapter(config.method);
  const Method* method = adapts ? &find_method(config.method) : nullptr;
  const bool targets = adapts && has_targets(*method);
  const char* naming = "a method that changes named modules, such as lora";
  if (!targets && !config.targets.empty()) {
    refuse_unused("targets", config, naming);
  }
  if (!targets && !config.exclude.empty()) {
    refuse_unused("exclude", config, naming);
  }
  if (!targets && !config.modules_to_save.empty()) {
    refuse_unused("modules_to_save", config, naming);
  }
  const bool layers = targets || (adapts && method->peft_type == "BOTTLENECK");
  if (!config.layers.empty() && (!layers || config.method == "trainable_tokens")) {
    refuse_unused("layers", config, "a method that changes modules of layers, such as lora");
  }
  if (!adapts && !config.settings.empty()) {
    refuse_unused("settings", config, "an adapter's method");
  }
  if (config.bias != "none" && (!adapts || !has_bias(*method))) {
    refuse_unused("bias", config, "bias: none, or a method such as lora; bitfit trains them alone");
  }
  if (config.method != "partial" && !config.train.empty()) {
    refuse_unused("train", config, "tuning.method: partial");
  }
  if (config.method != "partial" && config.last_layers != 0) {
    refuse_unused("last_layers", config, "tuning.method: partial");
  }
}

AdapterSpec AdapterSpec::from(const TuningConfig& config) {
  const Method& method = find_method(config.method);
  AdapterSpec spec;
  spec.method = config.method;
  spec.settings = default_settings(method);
  if (config.method == "lora") {
    take_lora(config.lora, *spec.settings);
  }
  if (config.method == "partial") {
    (*spec.settings)["train"] = config.train;
    (*spec.settings)["last_layers"] = config.last_layers;
  }
  for (const std::string& line : config.settings) {
    take_setting(method, line, *spec.settings);
  }
  check_patterns(*spec.settings, ErrorKind::Config, "tuning.settings");
  if (config.method == "lora") {
    check_start((*spec.settings)["init_lora_weights"]);
  }
  spec.targets = !config.targets.empty()   ? config.targets
                 : config.method == "lora" ? config.lora.targets
                                           : method.targets;
  spec.excluded = config.exclude;
  spec.layers_to_transform = layer_numbers(config.layers);
  spec.modules_to_save = config.modules_to_save;
  spec.bias = config.bias;
  return spec;
}

}  // namespace kamerton::tuning
