// SPDX-License-Identifier: Apache-2.0
#include "settings.h"

#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "kamerton/config/load.h"
#include "kamerton/core/error.h"

namespace kamerton::tuning {
namespace {

using core::Error;
using core::ErrorKind;
using core::Json;

/// Whether a value can stand where this default stands. An initialisation may be a flag or a name;
/// what has no default may be anything.
bool fits(const Setting& setting, const Json& value) {
  if (setting.value.is_null() ||
      (std::string_view(setting.name).starts_with("init_") && value.is_string())) {
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

/// A rank or a count of 0 means nothing; where the default is 0, something else gives it.
void check_range(const Setting& setting, const Json& value, ErrorKind kind, const std::string& in) {
  static const std::set<std::string> kCounts = {
      "r", "init_r", "n_frequency", "num_virtual_tokens", "mini_r", "reduction_factor"};
  if (kCounts.count(setting.name) == 0 || setting.value.get<double>() == 0) {
    return;
  }
  if (value.get<double>() < 1) {
    throw Error(kind,
                {.where = "tuning.settings",
                 .what = fmt::format("'{}' is out of range in {}", setting.name, in),
                 .got = value.dump(),
                 .allowed = "1 or more"});
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
    check_range(setting, value, ErrorKind::Config, "tuning.settings");
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
    check_range(setting, *value, ErrorKind::Data, origin);
    settings[setting.name] = *value;
  }
  return settings;
}

}  // namespace kamerton::tuning
