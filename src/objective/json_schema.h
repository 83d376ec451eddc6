// SPDX-License-Identifier: Apache-2.0
// JSON Schema (draft 7) by valijson, kept out of everybody's headers.
#pragma once

#include <memory>
#include <string>

#include "kamerton/core/json.h"

namespace kamerton::objective {

class JsonSchema {
 public:
  /// ErrorKind::Data naming `origin` for a schema that is none, or that refers to another document.
  JsonSchema(const core::Json& schema, const std::string& origin);
  ~JsonSchema();
  JsonSchema(JsonSchema&&) noexcept;
  JsonSchema& operator=(JsonSchema&&) noexcept;

  bool accepts(const core::Json& value) const;

 private:
  struct Parsed;
  std::unique_ptr<Parsed> parsed_;
};

}  // namespace kamerton::objective
