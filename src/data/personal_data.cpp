// SPDX-License-Identifier: Apache-2.0
#include "personal_data.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "ascii.h"
#include "digit_run.h"

namespace kamerton::data {
namespace {

constexpr size_t kMaxLocalPart = 64;
constexpr size_t kMaxDomain = 255;

bool is_word(char c) {
  return is_digit(c) || is_letter(c);
}

/// The address around the '@' at `at`.
std::optional<PersonalMatch> email_at(std::string_view text, size_t at, size_t floor) {
  constexpr std::string_view kLocal = "._%+-";
  size_t begin = at;
  while (begin > floor && at - begin < kMaxLocalPart &&
         (is_word(text[begin - 1]) || kLocal.find(text[begin - 1]) != std::string_view::npos)) {
    --begin;
  }
  while (begin < at && !is_word(text[begin])) {
    ++begin;
  }
  size_t end = at + 1;
  while (end < text.size() && end - at < kMaxDomain &&
         (is_word(text[end]) || text[end] == '-' || text[end] == '.')) {
    ++end;
  }
  while (end > at + 1 && !is_word(text[end - 1])) {
    --end;
  }
  const std::string_view domain = text.substr(at + 1, end - at - 1);
  const size_t dot = domain.rfind('.');
  if (begin == at || dot == std::string_view::npos || dot == 0 || domain[0] == '.' ||
      domain.find("..") != std::string_view::npos) {
    return std::nullopt;
  }
  const std::string_view top = domain.substr(dot + 1);
  if (top.size() < 2 || !std::all_of(top.begin(), top.end(), is_letter)) {
    return std::nullopt;
  }
  return PersonalMatch{Personal::Email, begin, end};
}

/// Letters and digits per country (ISO 13616 registry).
constexpr std::pair<std::string_view, int> kIbanLengths[] = {
    {"AD", 24}, {"AE", 23}, {"AL", 28}, {"AT", 20}, {"AZ", 28}, {"BA", 20}, {"BE", 16}, {"BG", 22},
    {"BH", 22}, {"BR", 29}, {"BY", 28}, {"CH", 21}, {"CR", 22}, {"CY", 28}, {"CZ", 24}, {"DE", 22},
    {"DK", 18}, {"DO", 28}, {"EE", 20}, {"EG", 29}, {"ES", 24}, {"FI", 18}, {"FO", 18}, {"FR", 27},
    {"GB", 22}, {"GE", 22}, {"GI", 23}, {"GL", 18}, {"GR", 27}, {"GT", 28}, {"HR", 21}, {"HU", 28},
    {"IE", 22}, {"IL", 23}, {"IQ", 23}, {"IS", 26}, {"IT", 27}, {"JO", 30}, {"KW", 30}, {"KZ", 20},
    {"LB", 28}, {"LI", 21}, {"LT", 20}, {"LU", 20}, {"LV", 21}, {"MC", 27}, {"MD", 24}, {"ME", 22},
    {"MK", 19}, {"MR", 27}, {"MT", 31}, {"MU", 30}, {"NL", 18}, {"NO", 15}, {"PK", 24}, {"PL", 28},
    {"PS", 29}, {"PT", 25}, {"QA", 29}, {"RO", 24}, {"RS", 22}, {"SA", 24}, {"SE", 24}, {"SI", 19},
    {"SK", 24}, {"SM", 27}, {"TN", 24}, {"TR", 26}, {"UA", 29}, {"VA", 22}, {"XK", 20}};

int iban_length(std::string_view country) {
  for (const auto& [name, length] : kIbanLengths) {
    if (name == country) {
      return length;
    }
  }
  return 0;
}

/// ISO 7064 mod 97-10 over the number with its first four signs moved to the end.
bool iban_is_right(const std::string& iban) {
  int rest = 0;
  for (size_t i = 0; i < iban.size(); ++i) {
    const char c = iban[(i + 4) % iban.size()];
    rest = is_digit(c) ? (rest * 10 + (c - '0')) % 97 : (rest * 100 + (c - 'A' + 10)) % 97;
  }
  return rest == 1;
}

/// An IBAN that starts at `begin`, in one piece or in groups with single blanks between.
std::optional<PersonalMatch> iban_at(std::string_view text, size_t begin) {
  if (begin + 4 > text.size() || !is_letter(text[begin + 1]) || !is_digit(text[begin + 2]) ||
      !is_digit(text[begin + 3]) || (begin > 0 && is_word(text[begin - 1]))) {
    return std::nullopt;
  }
  const int length = iban_length(text.substr(begin, 2));
  std::string iban;
  size_t at = begin;
  while (at < text.size() && static_cast<int>(iban.size()) < length) {
    const bool gap = text[at] == ' ' && !iban.empty() && text[at - 1] != ' ';
    if (!gap && !is_digit(text[at]) && !(text[at] >= 'A' && text[at] <= 'Z')) {
      break;
    }
    if (!gap) {
      iban += text[at];
    }
    ++at;
  }
  const bool ends = at == text.size() || !is_word(text[at]);
  if (length == 0 || static_cast<int>(iban.size()) != length || !ends || !iban_is_right(iban)) {
    return std::nullopt;
  }
  return PersonalMatch{Personal::Iban, begin, at};
}

/// PESEL, card or telephone: whichever some of the groups of digits prove to be.
std::optional<PersonalMatch> number_in(std::string_view text, const DigitRun& run) {
  if (is_phone(text, run)) {
    const bool sure = run.plus || run.groups.size() > 1;
    if (sure || !is_pesel(run)) {
      return PersonalMatch{Personal::Phone, run.begin, run.end};
    }
  }
  constexpr size_t kMostGroups = 5;
  for (size_t first = 0; first < run.groups.size(); ++first) {
    const size_t most = std::min(run.groups.size(), first + kMostGroups);
    for (size_t last = most; last > first; --last) {
      const DigitRun part = run.part(first, last);
      if (is_card(part) || is_pesel(part)) {
        return PersonalMatch{
            is_card(part) ? Personal::Card : Personal::Pesel, part.begin, part.end};
      }
    }
  }
  return std::nullopt;
}

}  // namespace

const char* name_of(Personal kind) {
  constexpr const char* kNames[] = {
      "e-mail address", "telephone number", "PESEL number", "IBAN", "payment card number"};
  return kNames[static_cast<size_t>(kind)];
}

const char* placeholder_of(Personal kind) {
  constexpr const char* kPlaceholders[] = {"[EMAIL]", "[PHONE]", "[PESEL]", "[IBAN]", "[CARD]"};
  return kPlaceholders[static_cast<size_t>(kind)];
}

std::vector<PersonalMatch> find_personal(std::string_view text) {
  std::vector<PersonalMatch> matches;
  size_t floor = 0;  // behind the last match
  for (size_t at = 0; at < text.size();) {
    const char c = text[at];
    std::optional<PersonalMatch> match;
    size_t next = at + 1;
    if (c == '@') {
      // A number that has just been found may be the local part.
      const bool touches = !matches.empty() && matches.back().end == at;
      match = email_at(text, at, touches ? matches.back().begin : floor);
    } else if (c >= 'A' && c <= 'Z') {
      match = iban_at(text, at);
    } else if (starts_digit_run(text, at)) {
      const DigitRun run = digit_run_at(text, at);
      match = number_in(text, run);
      next = run.end;
    }
    if (match) {
      while (!matches.empty() && matches.back().end > match->begin) {
        matches.pop_back();
      }
      matches.push_back(*match);
      next = floor = match->end;
    }
    at = std::max(next, at + 1);
  }
  return matches;
}

std::string redact_personal(std::string_view text, PersonalCounts& counts) {
  std::string result;
  size_t done = 0;
  for (const PersonalMatch& match : find_personal(text)) {
    result += text.substr(done, match.begin - done);
    result += placeholder_of(match.kind);
    done = match.end;
    ++counts[static_cast<size_t>(match.kind)];
  }
  return result.append(text.substr(done));
}

}  // namespace kamerton::data
