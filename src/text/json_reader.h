// SPDX-License-Identifier: Apache-2.0
// Short helpers to take a tokenizer file apart.
#pragma once

#include <string>
#include <string_view>

#include "kamerton/core/json.h"

namespace kamerton::text {

/// Throws ErrorKind::Data: "[text.tokenizer] origin: what; got ...".
[[noreturn]] void refuse(const std::string& origin,
                         const std::string& what,
                         const std::string& got = "");

bool flag(const core::Json& object, std::string_view key, bool otherwise);
std::string word(const core::Json& object, std::string_view key, const std::string& otherwise);
/// The "type" of a component.
std::string type_of(const core::Json& component, const std::string& origin);
/// Whole text of a file; ErrorKind::Io when it cannot be read.
std::string read_text(const std::string& path);

}  // namespace kamerton::text
