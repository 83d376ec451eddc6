// SPDX-License-Identifier: Apache-2.0
// A strict front of nlohmann-json: duplicate keys, depth and integer range are checked, the order
// of keys is kept.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace kamerton::core {

using Json = nlohmann::ordered_json;

struct JsonLimits {
  size_t max_bytes = size_t{1} << 30;
  int max_depth = 128;
};

/// Parses one JSON value. Throws ErrorKind::Data naming `origin` (a file, or "file:line") on bad
/// syntax, bad UTF-8, a duplicate key, an integer outside 64 bits, text after the value, or a limit
/// passed. Linear in the text's length (nlohmann's ordered objects alone would be quadratic in the
/// number of keys).
Json parse_json(std::string_view text, const std::string& origin, const JsonLimits& limits = {});

/// The strict integer / string / ... of object[key]; throws ErrorKind::Data naming origin and key
/// when it is missing or of another type.
int64_t json_int(const Json& object, std::string_view key, const std::string& origin);
double json_number(const Json& object, std::string_view key, const std::string& origin);
bool json_bool(const Json& object, std::string_view key, const std::string& origin);
std::string json_string(const Json& object, std::string_view key, const std::string& origin);
/// nullptr when the key is missing or its value is null.
const Json* json_find(const Json& object, std::string_view key);

}  // namespace kamerton::core
