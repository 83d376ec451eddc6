// SPDX-License-Identifier: Apache-2.0
#define VALIJSON_USE_EXCEPTIONS 1  // without it the library ends the process
#include "json_schema.h"

#include <nlohmann/json.hpp>
#include <valijson/adapters/nlohmann_json_adapter.hpp>
#include <valijson/schema.hpp>
#include <valijson/schema_parser.hpp>
#include <valijson/validator.hpp>

#include "kamerton/core/error.h"

namespace kamerton::objective {
namespace {

/// The library knows JSON with sorted keys only.
nlohmann::json sorted(const core::Json& json) {
  return nlohmann::json::parse(json.dump(-1, ' ', false, core::Json::error_handler_t::replace));
}

}  // namespace

struct JsonSchema::Parsed {
  valijson::Schema schema;
};

JsonSchema::JsonSchema(const core::Json& schema, const std::string& origin)
    : parsed_(std::make_unique<Parsed>()) {
  try {
    const nlohmann::json document = sorted(schema);
    valijson::SchemaParser parser;
    parser.populateSchema(valijson::adapters::NlohmannJsonAdapter(document), parsed_->schema);
  } catch (const std::exception& error) {
    throw core::Error(core::ErrorKind::Data,
                      {.where = "objective.json_schema",
                       .what = origin + " is no JSON schema",
                       .got = error.what()});
  }
}
JsonSchema::~JsonSchema() = default;
JsonSchema::JsonSchema(JsonSchema&&) noexcept = default;
JsonSchema& JsonSchema::operator=(JsonSchema&&) noexcept = default;

bool JsonSchema::accepts(const core::Json& value) const {
  const nlohmann::json document = sorted(value);
  valijson::Validator validator;
  return validator.validate(
      parsed_->schema, valijson::adapters::NlohmannJsonAdapter(document), nullptr);
}

}  // namespace kamerton::objective
