// SPDX-License-Identifier: Apache-2.0
#include "settings.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "kamerton/config/load.h"
#include "kamerton/core/error.h"

namespace kamerton::tuning {
namespace {

using core::Error;
using core::ErrorKind;
using core::Json;

bool is_text_or_list(const Json& value) {
  return value.is_string() ||
         (value.is_array() &&
          std::all_of(value.begin(), value.end(), [](const Json& one) { return one.is_string(); }));
}

/// Whether a value can stand where nothing stands by default.
bool fits_nothing(std::string_view name, const Json& value) {
  if (name == "feedforward_modules") {
    return is_text_or_list(value);
  }
  if (name == "rank_pattern") {
    return value.is_object();
  }
  if (name == "trainable_token_indices") {
    return value.is_array() || value.is_object();
  }
  return (name != "bottleneck_size" && name != "random_seed") || value.is_number_integer();
}

/// Whether a value can stand where this default stands. An initialisation may be a flag or a name.
bool fits(const Setting& setting, const Json& value) {
  if (value.is_null()) {
    return setting.value.is_null();
  }
  if (setting.value.is_null()) {
    return fits_nothing(setting.name, value);
  }
  if (std::string_view(setting.name).starts_with("init_") && value.is_string()) {
    return true;
  }
  if (setting.value.is_number_float()) {
    return value.is_number();
  }
  if (setting.value.is_number_integer()) {
    return value.is_number_integer();
  }
  return setting.value.type() == value.type();
}

std::vector<std::string> names_of(const Method& method) {
  std::vector<std::string> names;
  for (const Setting& setting : method.settings) {
    names.emplace_back(setting.name);
  }
  return names;
}

/// JSON where it is JSON, text otherwise.
Json value_of(const std::string& text, const Setting& setting) {
  if (setting.value.is_string()) {
    return text;
  }
  try {
    return core::parse_json(text, "tuning.settings");
  } catch (const Error&) {
    return text;
  }
}

struct Range {
  double least;
  double most;
  const char* text;
};

/// What a number may be, in files too where the last is true.
struct Ranged {
  std::string_view name;
  Range range;
  bool in_files;
};
constexpr double kMany = 1e9;
constexpr Range kCount = {1, kMany, "1 or more"};
constexpr Range kProbability = {0, 0.999, "0 to 0.999"};
constexpr Range kScale = {1e-9, kMany, "above 0"};
constexpr Range kDecay = {1e-9, 1 - 1e-9, "above 0, below 1"};
constexpr Range kSeed = {0, 9.2e18, "0 or more"};
const std::vector<Ranged>& ranges() {
  static const std::vector<Ranged> all = {
      {"r", kCount, true},
      {"init_r", kCount, true},
      {"target_r", kCount, false},
      {"total_step", kCount, false},
      {"tinit", kSeed, false},
      {"tfinal", kSeed, false},
      {"deltaT", kCount, false},
      {"beta1", kDecay, false},
      {"beta2", kDecay, false},
      {"orth_reg_weight", {0, kMany, "0 or more"}, false},
      {"n_frequency", kCount, true},
      {"num_virtual_tokens", kCount, true},
      {"mini_r", kCount, true},
      {"reduction_factor", kCount, true},
      {"bottleneck_size", kCount, true},
      {"num_cayley_neumann_terms", kCount, true},
      {"decompose_factor", {-1, kMany, "-1, or 1 or more"}, true},
      {"lora_dropout", kProbability, false},
      {"vera_dropout", kProbability, false},
      {"miss_dropout", kProbability, false},
      {"randlora_dropout", kProbability, false},
      {"lora_alpha", kScale, false},
      {"alpha", kScale, false},
      {"randlora_alpha", kScale, false},
      {"projection_prng_key", kSeed, true},
      {"random_seed", kSeed, true},
      {"random_loc_seed", kSeed, true}};
  return all;
}

[[noreturn]] void refuse_value(ErrorKind kind,
                               const std::string& name,
                               const std::string& in,
                               const std::string& got,
                               const std::string& allowed) {
  throw Error(kind,
              {.where = "tuning.settings",
               .what = fmt::format("'{}' is out of range in {}", name, in),
               .got = got,
               .allowed = allowed});
}

/// A rank or a count of 0 means nothing; where the default is 0, something else gives it.
void check_number(const Setting& setting,
                  const Json& value,
                  ErrorKind kind,
                  const std::string& in) {
  for (const Ranged& one : ranges()) {
    const bool other_gives_it = setting.value.is_number() && setting.value.get<double>() == 0 &&
                                one.range.text == kCount.text;
    if (one.name != setting.name || !value.is_number() || other_gives_it ||
        (kind == ErrorKind::Data && !one.in_files)) {
      continue;
    }
    const auto number = value.get<double>();
    const bool nothing = one.name == "decompose_factor" && number == 0;
    if (!(number >= one.range.least && number <= one.range.most) || nothing) {
      refuse_value(kind, setting.name, in, value.dump(), one.range.text);
    }
  }
}

/// Names of ways, where only these are built.
void check_choice(const Method& method,
                  const Setting& setting,
                  const Json& value,
                  const std::string& in) {
  const std::string_view name = setting.name;
  if (!value.is_string()) {
    return;
  }
  std::vector<std::string> ways;
  if (name == "init_weights" && method.name == "miss") {
    ways = {"bat", "mini"};
  } else if (name == "init_weights" && method.peft_type == "BOTTLENECK") {
    ways = {"bert", "mam_adapter"};
  } else if (name == "prompt_tuning_init") {
    ways = {"RANDOM"};
  }
  if (!ways.empty() &&
      std::find(ways.begin(), ways.end(), value.get<std::string>()) == ways.end()) {
    throw Error(ErrorKind::Config,
                {.where = "tuning.settings",
                 .what = fmt::format("'{}' of method {} is not built in {}", name, method.name, in),
                 .got = value.dump(),
                 .allowed = fmt::format("{}", fmt::join(ways, ", ")),
                 .hint = config::nearest(value.get<std::string>(), ways)});
  }
}

}  // namespace

SettingValues::SettingValues() : values_(std::make_unique<Json>(Json::object())) {}
SettingValues::SettingValues(Json values) : values_(std::make_unique<Json>(std::move(values))) {}
SettingValues::SettingValues(const SettingValues& other)
    : values_(std::make_unique<Json>(*other.values_)) {}
SettingValues::SettingValues(SettingValues&& other) noexcept = default;
SettingValues& SettingValues::operator=(SettingValues other) noexcept {
  values_ = std::move(other.values_);
  return *this;
}
SettingValues::~SettingValues() = default;

Json default_settings(const Method& method) {
  Json settings = Json::object();
  for (const Setting& setting : method.settings) {
    settings[setting.name] = setting.value;
  }
  return settings;
}

void take_setting(const Method& method, const std::string& line, Json& settings) {
  const size_t at = line.find('=');
  const std::string name = line.substr(0, at);
  for (const Setting& setting : method.settings) {
    if (name != setting.name || at == std::string::npos) {
      continue;
    }
    const Json value = value_of(line.substr(at + 1), setting);
    if (!fits(setting, value)) {
      throw Error(ErrorKind::Config,
                  {.where = "tuning.settings",
                   .what = fmt::format("'{}' of method {} is of another type", name, method.name),
                   .got = value.dump(),
                   .allowed = fmt::format("such as {}", setting.value.dump())});
    }
    check_number(setting, value, ErrorKind::Config, "tuning.settings");
    check_choice(method, setting, value, "tuning.settings");
    settings[name] = value;
    return;
  }
  const std::vector<std::string> names = names_of(method);
  throw Error(ErrorKind::Config,
              {.where = "tuning.settings",
               .what = fmt::format("method {} has no such setting", method.name),
               .got = "'" + line + "'",
               .allowed = fmt::format("NAME=VALUE with {}", fmt::join(names, ", ")),
               .hint = config::nearest(name, names)});
}

Json settings_of(const Method& method, const Json& config, const std::string& origin) {
  Json settings = default_settings(method);
  for (const Setting& setting : method.settings) {
    const Json* value = core::json_find(config, setting.name);
    if (value == nullptr) {
      continue;
    }
    if (!fits(setting, *value)) {
      throw Error(ErrorKind::Data,
                  {.where = "tuning.settings",
                   .what = fmt::format("'{}' is of another type in {}", setting.name, origin),
                   .got = value->dump(),
                   .allowed = fmt::format("such as {}", setting.value.dump())});
    }
    check_number(setting, *value, ErrorKind::Data, origin);
    settings[setting.name] = *value;
  }
  return settings;
}

}  // namespace kamerton::tuning
