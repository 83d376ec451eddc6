// SPDX-License-Identifier: Apache-2.0
// Personal data in a text, with check digits verified where there are any, so that false alarms
// stay rare.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kamerton::data {

enum class Personal : uint8_t { Email, Phone, Pesel, Iban, Card };
inline constexpr size_t kPersonalKinds = 5;

/// "e-mail address", "telephone number", ...
const char* name_of(Personal kind);
/// What stands in a clean copy: "[EMAIL]", "[PHONE]", ...
const char* placeholder_of(Personal kind);

struct PersonalMatch {
  Personal kind = Personal::Email;
  size_t begin = 0;
  size_t end = 0;
};

/// Disjoint, in order. Linear in the text's length.
/// PESEL: 11 digits, a date that exists, weights 1 3 7 9 1 3 7 9 1 3. IBAN: length of its country,
/// ISO 7064 mod 97 = 1. Card: a prefix and length of a known scheme, Luhn. Telephone: a leading +
/// or 00 and 8 to 15 digits, or nine or more digits behind a word such as "tel.", or the American
/// form. E-mail: local part, domain with a dot, a top level of letters.
std::vector<PersonalMatch> find_personal(std::string_view text);

using PersonalCounts = std::array<int64_t, kPersonalKinds>;

/// The text with placeholders; `counts` grows.
std::string redact_personal(std::string_view text, PersonalCounts& counts);

}  // namespace kamerton::data
