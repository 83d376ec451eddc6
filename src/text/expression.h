// SPDX-License-Identifier: Apache-2.0
// Regular expressions as tokenizer files write them (Oniguruma's dialect), matched by PCRE2.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "aligned_text.h"

namespace kamerton::text {

class Regex {
 public:
  /// Throws ErrorKind::Data naming `origin` when the pattern cannot be compiled.
  Regex(std::string_view pattern, const std::string& origin);

  /// Calls visit for each match in valid UTF-8 `s`, left to right; for empty ones only where asked.
  /// Throws ErrorKind::Data when the pattern backtracks without end on this text.
  void each_match(std::string_view s,
                  const std::function<void(Span)>& visit,
                  bool empty_ones = false) const;

 private:
  struct Code;
  std::shared_ptr<const Code> code_;
};

}  // namespace kamerton::text
