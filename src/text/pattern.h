// SPDX-License-Identifier: Apache-2.0
// Where a text is cut or replaced: a fixed string, a regular expression, or a class of characters.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "kamerton/core/json.h"

#include "expression.h"
#include "scanner.h"

namespace kamerton::text {

class Pattern {
 public:
  /// {"String": "x"} or {"Regex": "x"}.
  static Pattern from_json(const core::Json& json, const std::string& origin);
  static Pattern of_string(std::string text);
  static Pattern of_regex(std::string_view regex, const std::string& origin);
  /// The Whitespace pre-tokenizer's words.
  static Pattern of_words();
  /// Every character with one of the flags is a match of its own.
  static Pattern of_class(uint16_t flags);

  /// Empty matches of an expression are visited only where asked.
  void each_match(std::string_view s,
                  const std::function<void(Span)>& visit,
                  bool empty_ones = false) const;
  /// The hand-written scanner that finds the same matches, if there is one.
  Scan scanner() const { return scanner_; }

 private:
  std::string literal_;
  std::optional<Regex> regex_;
  uint16_t flags_ = 0;
  Scan scanner_ = Scan::None;
};

enum class Behavior { Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous };
Behavior behavior_from(const std::string& name, const std::string& origin);

/// Appends the pieces of s[range]; empty ones are left out.
void split(std::string_view s,
           Span range,
           const Pattern& pattern,
           Behavior behavior,
           bool invert,
           std::vector<Span>& pieces);

}  // namespace kamerton::text
