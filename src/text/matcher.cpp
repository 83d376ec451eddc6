// SPDX-License-Identifier: Apache-2.0
#include "kamerton/text/matcher.h"

#include "expression.h"

namespace kamerton::text {

struct Matcher::Code {
  Regex regex;
};

Matcher::Matcher(std::string_view pattern, const std::string& origin)
    : code_(new Code{Regex(pattern, origin)}) {}
Matcher::~Matcher() = default;
Matcher::Matcher(Matcher&&) noexcept = default;
Matcher& Matcher::operator=(Matcher&&) noexcept = default;

bool Matcher::found_in(std::string_view text) const {
  bool found = false;
  code_->regex.each_match(
      text, [&found](Span) { found = true; }, /*empty_ones=*/true);
  return found;
}

}  // namespace kamerton::text
