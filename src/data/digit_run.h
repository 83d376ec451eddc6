// SPDX-License-Identifier: Apache-2.0
// Digits with single separators between them, and what they can be proved to be.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace kamerton::data {

/// "+48 601-234-567" as written at [begin, end) of a text.
struct DigitRun {
  std::string digits;
  std::vector<size_t> groups;  ///< digits in each group between separators
  std::vector<size_t> starts;  ///< where each group begins in the text
  size_t begin = 0;
  size_t first_digit = 0;
  size_t end = 0;
  bool plus = false;     ///< a '+' stands in front
  bool parens = false;   ///< the American "(212) 555-0100"
  bool dotted = false;   ///< a '.' between groups: decimal numbers and versions, too
  bool bounded = false;  ///< no letter or digit touches it

  /// Groups [first, last) as a run of their own.
  DigitRun part(size_t first, size_t last) const;
};

bool starts_digit_run(std::string_view text, size_t at);
DigitRun digit_run_at(std::string_view text, size_t at);

/// One group of eleven digits.
bool is_pesel(const DigitRun& run);
/// One group, or the groups that cards are printed in.
bool is_card(const DigitRun& run);
bool is_phone(std::string_view text, const DigitRun& run);

}  // namespace kamerton::data
