// SPDX-License-Identifier: Apache-2.0
#include "digit_run.h"

#include <algorithm>
#include <array>

#include "ascii.h"

namespace kamerton::data {
namespace {

constexpr size_t kMaxDigits = 40;
constexpr std::string_view kNoBreakSpace = "\xC2\xA0";

bool is_name_char(char c) {
  return is_digit(c) || is_letter(c) || c == '_';
}

/// Bytes of one separator at `at` that a digit follows; 0: none.
size_t separator_at(std::string_view text, size_t at) {
  size_t length = 0;
  if (text[at] == ' ' || text[at] == '-' || text[at] == '.') {
    length = 1;
  } else if (text.substr(at).starts_with(kNoBreakSpace)) {
    length = kNoBreakSpace.size();
  } else if (text.substr(at).starts_with(") ") || text.substr(at).starts_with(")-")) {
    length = 2;
  } else if (text[at] == ')') {
    length = 1;
  }
  return length > 0 && at + length < text.size() && is_digit(text[at + length]) ? length : 0;
}

int number_at(std::string_view digits, size_t at) {
  return (digits[at] - '0') * 10 + (digits[at + 1] - '0');
}

/// PESEL writes the century into the month: +80 for 18xx, +0, +20, +40, +60.
bool is_pesel_date(std::string_view digits) {
  constexpr std::array<int, 12> kDays = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  const int month = number_at(digits, 2) % 20;
  const int day = number_at(digits, 4);
  return month >= 1 && month <= 12 && day >= 1 && day <= kDays[static_cast<size_t>(month - 1)];
}

bool luhn(std::string_view digits) {
  int sum = 0;
  for (size_t i = 0; i < digits.size(); ++i) {
    int value = digits[digits.size() - 1 - i] - '0';
    if (i % 2 == 1) {
      value = value * 2 > 9 ? value * 2 - 9 : value * 2;
    }
    sum += value;
  }
  return sum % 10 == 0;
}

int leading(std::string_view digits, size_t count) {
  int value = 0;
  for (size_t i = 0; i < count; ++i) {
    value = value * 10 + (digits[i] - '0');
  }
  return value;
}

/// Issuer prefixes and the lengths that go with them.
bool is_card_scheme(std::string_view digits) {
  const size_t n = digits.size();
  const int two = leading(digits, 2);
  const int four = leading(digits, 4);
  if (digits[0] == '4') {
    return n == 13 || n == 16 || n == 19;
  }
  if ((two >= 51 && two <= 55) || (four >= 2221 && four <= 2720)) {
    return n == 16;
  }
  if (two == 34 || two == 37) {
    return n == 15;
  }
  if (two == 36 || two == 38 || (four >= 3000 && four <= 3059)) {
    return n == 14;
  }
  return n == 16 && (four == 6011 || two == 65 || (four >= 3528 && four <= 3589));
}

/// A word that announces a number stands within a few signs before it.
bool announced(std::string_view text, size_t begin) {
  constexpr size_t kReach = 14;
  constexpr std::array<std::string_view, 9> kWords = {
      "tel", "phone", "mobile", "call", "fax", "kom.", "kom:", "cell", "whatsapp"};
  std::string before(text.substr(begin - std::min(begin, kReach), std::min(begin, kReach)));
  std::transform(before.begin(), before.end(), before.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  });
  return std::any_of(kWords.begin(), kWords.end(), [&](std::string_view word) {
    return before.find(word) != std::string::npos;
  });
}

}  // namespace

bool starts_digit_run(std::string_view text, size_t at) {
  const bool sign = text[at] == '+' || text[at] == '(';
  return is_digit(text[at]) || (sign && at + 1 < text.size() && is_digit(text[at + 1]));
}

DigitRun digit_run_at(std::string_view text, size_t at) {
  DigitRun run;
  run.begin = at;
  run.plus = text[at] == '+';
  run.parens = text[at] == '(';
  run.first_digit = at + (run.plus || run.parens ? 1 : 0);
  run.groups.push_back(0);
  run.starts.push_back(run.first_digit);
  size_t end = run.first_digit;
  while (end < text.size() && run.digits.size() < kMaxDigits) {
    if (is_digit(text[end])) {
      run.digits += text[end++];
      ++run.groups.back();
      continue;
    }
    const size_t separator = separator_at(text, end);
    if (separator == 0) {
      break;
    }
    run.dotted = run.dotted || text[end] == '.';
    run.groups.push_back(0);
    end += separator;
    run.starts.push_back(end);
  }
  while (end < text.size() && is_digit(text[end])) {  // an endless one is none of ours
    ++end;
    run.digits += '0';
    ++run.groups.back();
  }
  run.end = end;
  const bool left = run.begin == 0 || !is_name_char(text[run.begin - 1]);
  run.bounded = left && (end == text.size() || !is_name_char(text[end]));
  return run;
}

DigitRun DigitRun::part(size_t first, size_t last) const {
  DigitRun result;
  size_t skipped = 0;
  for (size_t i = 0; i < first; ++i) {
    skipped += groups[i];
  }
  for (size_t i = first; i < last; ++i) {
    result.groups.push_back(groups[i]);
    result.starts.push_back(starts[i]);
  }
  size_t count = 0;
  for (const size_t group : result.groups) {
    count += group;
  }
  result.digits = digits.substr(skipped, count);
  result.begin = result.first_digit = starts[first];
  result.end = starts[last - 1] + groups[last - 1];
  result.dotted = dotted;
  result.parens = parens;
  result.bounded = bounded;
  return result;
}

bool is_pesel(const DigitRun& run) {
  constexpr std::array<int, 10> kWeights = {1, 3, 7, 9, 1, 3, 7, 9, 1, 3};
  const std::string_view digits = run.digits;
  if (digits.size() != 11 || run.groups.size() != 1 || !run.bounded || !is_pesel_date(digits)) {
    return false;
  }
  int sum = 0;
  for (size_t i = 0; i < kWeights.size(); ++i) {
    sum += kWeights[i] * (digits[i] - '0');
  }
  return (10 - sum % 10) % 10 == digits[10] - '0';
}

bool is_card(const DigitRun& run) {
  using Groups = std::vector<size_t>;
  const std::string_view digits = run.digits;
  if (!run.bounded || run.dotted || digits.size() < 13 || digits.size() > 19) {
    return false;
  }
  const bool printed = run.groups.size() == 1 || run.groups == Groups{4, 4, 4, 4} ||
                       run.groups == Groups{4, 6, 5} || run.groups == Groups{4, 6, 4} ||
                       run.groups == Groups{4, 4, 4, 4, 3};
  const bool one_digit = digits.find_first_not_of(digits[0]) == std::string_view::npos;
  return printed && !one_digit && is_card_scheme(digits) && luhn(digits);
}

bool is_phone(std::string_view text, const DigitRun& run) {
  const size_t n = run.digits.size();
  if (!run.bounded || n < 8 || n > 15) {
    return false;
  }
  if (run.plus) {
    return run.digits[0] != '0';
  }
  const bool american =
      n == 10 && run.groups == std::vector<size_t>{3, 3, 4} && (run.parens || !run.dotted);
  const bool far = run.digits.starts_with("00") && n >= 11 && run.groups.size() > 1 && !run.dotted;
  return american || far || (n >= 9 && announced(text, run.begin));
}

}  // namespace kamerton::data
