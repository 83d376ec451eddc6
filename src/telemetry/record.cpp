// SPDX-License-Identifier: Apache-2.0
#include "kamerton/telemetry/record.h"

namespace kamerton::telemetry {

Record& Record::add(std::string_view name, int64_t value) {
  values.emplace_back(std::string(name), value);
  return *this;
}

Record& Record::add(std::string_view name, double value) {
  values.emplace_back(std::string(name), value);
  return *this;
}

Record& Record::add(std::string_view name, std::string_view value) {
  values.emplace_back(std::string(name), std::string(value));
  return *this;
}

const Value* Record::find(std::string_view name) const {
  for (const auto& [key, value] : values) {
    if (key == name) {
      return &value;
    }
  }
  return nullptr;
}

double Record::number(std::string_view name, double fallback) const {
  const Value* value = find(name);
  if (value == nullptr) {
    return fallback;
  }
  if (const auto* integer = std::get_if<int64_t>(value)) {
    return static_cast<double>(*integer);
  }
  const auto* real = std::get_if<double>(value);
  return real == nullptr ? fallback : *real;
}

}  // namespace kamerton::telemetry
