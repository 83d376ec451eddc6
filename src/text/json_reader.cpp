// SPDX-License-Identifier: Apache-2.0
#include "json_reader.h"

#include <fstream>
#include <iterator>

#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"

namespace kamerton::text {

void refuse(const std::string& origin, const std::string& what, const std::string& got) {
  throw core::Error(core::ErrorKind::Data,
                    {.where = "text.tokenizer",
                     .what = origin + ": " + what,
                     .got = got.substr(0, 200),
                     .allowed = "",
                     .hint = ""});
}

bool flag(const core::Json& object, std::string_view key, bool otherwise) {
  const core::Json* value = core::json_find(object, key);
  if (value == nullptr) {
    return otherwise;
  }
  if (!value->is_boolean()) {
    refuse("tokenizer.json", "'" + std::string(key) + "' must be true or false", value->dump());
  }
  return value->get<bool>();
}

std::string word(const core::Json& object, std::string_view key, const std::string& otherwise) {
  const core::Json* value = core::json_find(object, key);
  if (value == nullptr) {
    return otherwise;
  }
  if (!value->is_string()) {
    refuse("tokenizer.json", "'" + std::string(key) + "' must be a string", value->dump());
  }
  return value->get<std::string>();
}

std::string type_of(const core::Json& component, const std::string& origin) {
  if (!component.is_object()) {
    refuse(origin, "a component must be an object", component.dump());
  }
  return core::json_string(component, "type", origin);
}

std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file.is_open() || file.bad()) {
    throw core::Error(core::ErrorKind::Io,
                      {.where = "text.tokenizer",
                       .what = "cannot read " + path,
                       .got = "",
                       .allowed = "",
                       .hint = ""});
  }
  return text;
}

}  // namespace kamerton::text
