// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdlib>
#include <regex>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "kamerton/config/load.h"
#include "kamerton/core/error.h"

#include "method.h"
#include "patterns.h"
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
    if (at == std::string::npos || end == line.c_str() + at + 1 || *end != '\0' || value <= 0) {
      throw Error(ErrorKind::Config,
                  {.where = "tuning.adapter",
                   .what = fmt::format("tuning.lora.{} holds something else", key),
                   .got = "'" + line + "'",
                   .allowed = "EXPRESSION=NUMBER with a number above 0"});
    }
    compile(line.substr(0, at));
    if (std::string(key) == "rank_pattern") {
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

bool names_module(const AdapterSpec& spec, const std::string& module) {
  for (const std::string& target : spec.targets) {
    if (target.starts_with("re:") ? std::regex_match(module, compile(target.substr(3)))
                                  : target != "all-linear" && module_ends_with(module, target)) {
      return true;
    }
  }
  return false;
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
         ((all && !module_ends_with(module, "lm_head")) || names_module(*this, module));
}

bool AdapterSpec::unties_head(const model::DecoderConfig& config) const {
  const auto saves = [this](const std::string& module) {
    return std::any_of(modules_to_save.begin(), modules_to_save.end(), [&](const auto& name) {
      return module_ends_with(module, name);
    });
  };
  return config.tied_head &&
         (saves(config.names.head) || saves("lm_head") || saves(config.names.embedding));
}

model::DecoderConfig prepare_config(model::DecoderConfig config, const AdapterSpec& spec) {
  if (spec.unties_head(config)) {
    config.tied_head = false;
    config.head_from_embedding = true;
  }
  return config;
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
  spec.targets = !config.targets.empty()   ? config.targets
                 : config.method == "lora" ? config.lora.targets
                                           : method.targets;
  spec.layers_to_transform = layer_numbers(config.layers);
  spec.modules_to_save = config.modules_to_save;
  spec.bias = config.bias;
  return spec;
}

}  // namespace kamerton::tuning
