// SPDX-License-Identifier: Apache-2.0
// Template text to tokens, with Jinja's whitespace control (trim_blocks and lstrip_blocks on, as
// transformers has it).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "jinja_value.h"

namespace kamerton::text::jinja {

enum class TokenKind {
  Data,
  VariableBegin,
  VariableEnd,
  BlockBegin,
  BlockEnd,
  Name,
  String,
  Number,
  Operator,
  End
};

struct Token {
  TokenKind kind = TokenKind::End;
  std::string text;  ///< data, name, operator, or the string's value
  Value number;
  int line = 1;
};

/// Ends with one End token. Throws ErrorKind::Data with the line on what is no template.
std::vector<Token> tokenize(std::string_view source);

}  // namespace kamerton::text::jinja
