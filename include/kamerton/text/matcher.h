// SPDX-License-Identifier: Apache-2.0
// Whether a regular expression is found in a text.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace kamerton::text {

/// Immutable, thread-safe. PCRE2's syntax, Unicode.
class Matcher {
 public:
  /// ErrorKind::Data naming `origin` when the pattern cannot be compiled.
  Matcher(std::string_view pattern, const std::string& origin);
  ~Matcher();
  Matcher(Matcher&&) noexcept;
  Matcher& operator=(Matcher&&) noexcept;

  /// In valid UTF-8. ErrorKind::Data when the pattern backtracks without end on this text.
  bool found_in(std::string_view text) const;

 private:
  struct Code;
  std::unique_ptr<const Code> code_;
};

}  // namespace kamerton::text
