// SPDX-License-Identifier: Apache-2.0
// Pre-tokenizers that both a tokenizer.json and llama.cpp can express.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "kamerton/core/json.h"

namespace kamerton::text {

/// tokenizer.ggml.token_type
enum class GgufTokenType : int32_t {
  Normal = 1,
  Unknown = 2,
  Control = 3,
  UserDefined = 4,
  Unused = 5,
  Byte = 6,
};

struct GgufStyle {
  core::Json normalizer;
  core::Json pre_tokenizer;
  bool ignore_merges = false;
};

/// ByteLevel in the form in which the reference library writes it.
core::Json byte_level_json(bool add_prefix_space, bool use_regex);

/// What the name in tokenizer.ggml.pre means. Throws ErrorKind::Data for a name that is not known.
GgufStyle gguf_style(const std::string& pre, const std::string& origin);

/// The name in tokenizer.ggml.pre for a byte-level tokenizer.json's pre-tokenizer; nothing when
/// llama.cpp has none that splits the same.
std::optional<std::string> gguf_style_name(const core::Json& pre_tokenizer);

}  // namespace kamerton::text
