// SPDX-License-Identifier: Apache-2.0
#include "config_reader.h"

#include <cmath>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"

namespace kamerton::model {
namespace {

constexpr int64_t kLargestToken = int64_t{1} << 31;

std::string shown(const core::Json& value) {
  std::string text = value.dump();
  if (text.size() > 120) {
    text.resize(117);
    text.append(3, '.');
  }
  return text;
}

}  // namespace

ConfigReader::ConfigReader(const core::Json& object, std::string origin, std::string path)
    : object_(object), origin_(std::move(origin)), path_(std::move(path)) {}

void ConfigReader::refuse(std::string_view key,
                          const std::string& what,
                          const std::string& got,
                          const std::string& allowed) const {
  throw core::Error(core::ErrorKind::Data,
                    {.where = "model.config",
                     .what = fmt::format("{}: {}{}: {}", origin_, path_, key, what),
                     .got = got,
                     .allowed = allowed});
}

const core::Json* ConfigReader::find(std::initializer_list<std::string_view> spellings) const {
  const core::Json* found = nullptr;
  std::string_view found_as;
  for (const std::string_view key : spellings) {
    const core::Json* value = core::json_find(object_, key);
    if (value == nullptr) {
      continue;
    }
    if (found != nullptr && *found != *value) {
      refuse(key,
             fmt::format("differs from {}, another spelling of the same setting", found_as),
             fmt::format("{} and {}", shown(*value), shown(*found)),
             "one of them, or equal values");
    }
    if (found == nullptr) {
      found = value;
      found_as = key;
    }
  }
  return found;
}

int64_t ConfigReader::size(std::initializer_list<std::string_view> spellings,
                           int64_t fallback,
                           int64_t limit) const {
  const core::Json* value = find(spellings);
  if (value == nullptr) {
    return fallback;
  }
  const bool fits = value->is_number_integer() &&
                    (!value->is_number_unsigned() || value->get<uint64_t>() <= uint64_t(limit));
  if (!fits || value->get<int64_t>() < 1 || value->get<int64_t>() > limit) {
    refuse(*spellings.begin(),
           "not a usable size",
           shown(*value),
           fmt::format("an integer from 1 to {}", limit));
  }
  return value->get<int64_t>();
}

int64_t ConfigReader::size_or_none(std::string_view key, int64_t fallback, int64_t limit) const {
  return size({key}, object_.contains(key) ? 0 : fallback, limit);
}

double ConfigReader::number(std::initializer_list<std::string_view> spellings,
                            double fallback) const {
  const core::Json* value = find(spellings);
  if (value == nullptr) {
    return fallback;
  }
  if (!value->is_number() || !std::isfinite(value->get<double>())) {
    refuse(*spellings.begin(), "not a number", shown(*value), "a finite number");
  }
  return value->get<double>();
}

double ConfigReader::positive(std::initializer_list<std::string_view> spellings,
                              double fallback) const {
  const double value = number(spellings, fallback);
  if (value <= 0) {
    refuse(*spellings.begin(), "must be above zero", fmt::format("{}", value), "a number > 0");
  }
  return value;
}

double ConfigReader::positive_or_none(std::string_view key, double fallback) const {
  if (find({key}) == nullptr) {
    return object_.contains(key) ? 0.0 : fallback;
  }
  return positive({key}, fallback);
}

std::vector<double> ConfigReader::positives(std::string_view key) const {
  const core::Json* value = core::json_find(object_, key);
  std::vector<double> result;
  if (value == nullptr) {
    return result;
  }
  if (!value->is_array()) {
    refuse(key, "not a list", shown(*value), "a list of numbers");
  }
  for (const core::Json& item : *value) {
    if (!item.is_number() || !std::isfinite(item.get<double>()) || item.get<double>() <= 0) {
      refuse(key, "not a number above zero", shown(item), "a list of numbers > 0");
    }
    result.push_back(item.get<double>());
  }
  return result;
}

bool ConfigReader::flag(std::string_view key, bool fallback) const {
  const core::Json* value = core::json_find(object_, key);
  if (value == nullptr) {
    return fallback;
  }
  if (!value->is_boolean()) {
    refuse(key, "not true or false", shown(*value), "true or false");
  }
  return value->get<bool>();
}

std::string ConfigReader::text(std::initializer_list<std::string_view> spellings,
                               const std::string& fallback) const {
  const core::Json* value = find(spellings);
  if (value == nullptr) {
    return fallback;
  }
  if (!value->is_string()) {
    refuse(*spellings.begin(), "not a text", shown(*value), "a string");
  }
  return value->get<std::string>();
}

std::vector<int64_t> ConfigReader::tokens(std::string_view key) const {
  const core::Json* value = core::json_find(object_, key);
  if (value == nullptr) {
    return {};
  }
  const core::Json list = value->is_array() ? *value : core::Json::array({*value});
  std::vector<int64_t> ids;
  for (const core::Json& id : list) {
    if (!id.is_number_integer() || id.get<double>() < -1 ||
        id.get<double>() >= static_cast<double>(kLargestToken)) {
      refuse(key, "not a token id", shown(id), "an integer, or a list of integers");
    }
    if (id.get<int64_t>() >= 0) {  // -1: the old way to say "none"
      ids.push_back(id.get<int64_t>());
    }
  }
  return ids;
}

std::optional<int64_t> ConfigReader::token(std::string_view key) const {
  const std::vector<int64_t> ids = tokens(key);
  return ids.empty() ? std::nullopt : std::optional<int64_t>(ids.front());
}

std::vector<std::string> ConfigReader::texts(std::string_view key) const {
  const core::Json* value = core::json_find(object_, key);
  std::vector<std::string> result;
  if (value == nullptr) {
    return result;
  }
  if (!value->is_array()) {
    refuse(key, "not a list", shown(*value), "a list of strings");
  }
  for (const core::Json& item : *value) {
    if (!item.is_string()) {
      refuse(key, "not a text", shown(item), "a list of strings");
    }
    result.push_back(item.get<std::string>());
  }
  return result;
}

}  // namespace kamerton::model
