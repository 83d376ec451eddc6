// SPDX-License-Identifier: Apache-2.0
#include "jinja_strings.h"

#include <algorithm>

#include <utf8proc.h>

#include "jinja_interpreter.h"
#include "unicode.h"

namespace kamerton::text::jinja {
namespace {

uint16_t flags_of(char32_t c) {
  return char_flags(c);
}

/// The few characters whose capital is longer than one character, as far as text in use has them.
void append_upper(std::string& out, uint32_t c) {
  if (c == 0xDF) {
    out += "SS";
  } else if (c >= 0xFB00 && c <= 0xFB06) {
    constexpr const char* kLigatures[] = {"FF", "FI", "FL", "FFI", "FFL", "ST", "ST"};
    out += kLigatures[c - 0xFB00];
  } else {
    append_char(out, static_cast<uint32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c))));
  }
}

void append_lower_utf8(std::string& out, uint32_t c) {
  std::u32string lower_chars;
  append_lower(lower_chars, c);
  for (const char32_t l : lower_chars) {
    append_char(out, l);
  }
}

template <class Test>
bool all_chars(std::string_view text, Test test) {
  const std::u32string chars = to_chars(text);
  return !chars.empty() && std::all_of(chars.begin(), chars.end(), test);
}

bool is_space_at(std::string_view text, size_t i) {
  return (char_flags(char_at(text, i)) & kSpace) != 0;
}

}  // namespace

std::string upper(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    append_upper(out, next_char(text, i));
  }
  return out;
}

std::string lower(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    append_lower_utf8(out, next_char(text, i));
  }
  return out;
}

std::string capitalized(std::string_view text) {
  if (text.empty()) {
    return "";
  }
  size_t i = 0;
  std::string out;
  append_upper(out, next_char(text, i));
  return out + lower(text.substr(i));
}

std::string title_words(std::string_view text) {
  std::string out;
  bool inside = false;
  for (size_t i = 0; i < text.size();) {
    const uint32_t c = next_char(text, i);
    inside ? append_lower_utf8(out, c) : append_upper(out, c);
    inside = (char_flags(c) & kLetter) != 0;
  }
  return out;
}

std::string swapped_case(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const uint32_t c = next_char(text, i);
    (char_flags(c) & kUpper) != 0 ? append_lower_utf8(out, c) : append_upper(out, c);
  }
  return out;
}

bool is_digits(std::string_view text) {
  return all_chars(text, [](char32_t c) { return (flags_of(c) & kNumber) != 0; });
}
bool is_letters(std::string_view text) {
  return all_chars(text, [](char32_t c) { return (flags_of(c) & kLetter) != 0; });
}
bool is_letters_or_digits(std::string_view text) {
  return all_chars(text, [](char32_t c) { return (flags_of(c) & (kLetter | kNumber)) != 0; });
}
bool is_blank(std::string_view text) {
  return all_chars(text, [](char32_t c) { return (flags_of(c) & kSpace) != 0; });
}

bool is_upper(std::string_view text) {
  const std::u32string chars = to_chars(text);
  return std::any_of(
             chars.begin(), chars.end(), [](char32_t c) { return (flags_of(c) & kUpper) != 0; }) &&
         std::none_of(
             chars.begin(), chars.end(), [](char32_t c) { return (flags_of(c) & kLower) != 0; });
}

bool is_lower(std::string_view text) {
  const std::u32string chars = to_chars(text);
  return std::any_of(
             chars.begin(), chars.end(), [](char32_t c) { return (flags_of(c) & kLower) != 0; }) &&
         std::none_of(
             chars.begin(), chars.end(), [](char32_t c) { return (flags_of(c) & kUpper) != 0; });
}

namespace {

template <class Test>
std::string stripped(std::string_view text, bool left, bool right, Test test) {
  size_t begin = 0;
  size_t end = text.size();
  while (left && begin < end && test(char_at(text, begin))) {
    begin += char_length(static_cast<unsigned char>(text[begin]));
  }
  while (right && end > begin && test(char_at(text, previous_start(text, end)))) {
    end = previous_start(text, end);
  }
  return std::string(text.substr(begin, end - begin));
}

/// Python's str.strip also takes the separators U+001C to U+001F.
bool python_space(uint32_t c) {
  return (char_flags(c) & kSpace) != 0 || (c >= 0x1C && c <= 0x1F);
}

}  // namespace

std::string strip_blanks(std::string_view text, bool left, bool right) {
  return stripped(text, left, right, python_space);
}

std::string strip_chars(std::string_view text, std::string_view chars, bool left, bool right) {
  const std::u32string set = to_chars(chars);
  spend(static_cast<int64_t>(set.size() / 16));
  return stripped(text, left, right, [&](uint32_t c) {
    return set.find(static_cast<char32_t>(c)) != std::u32string::npos;
  });
}

std::vector<std::string> split_blanks(std::string_view text, int64_t most, bool from_right) {
  spend(static_cast<int64_t>(text.size() / 8));
  std::vector<std::pair<size_t, size_t>> words;
  for (size_t i = 0; i < text.size();) {
    const size_t begin = i;
    while (i < text.size() && !is_space_at(text, i)) {
      i += char_length(static_cast<unsigned char>(text[i]));
    }
    if (i > begin) {
      words.emplace_back(begin, i);
    } else {
      i += char_length(static_cast<unsigned char>(text[i]));
    }
  }
  const auto limit = static_cast<size_t>(most < 0 ? INT64_MAX : most);
  std::vector<std::string> out;
  if (words.size() > limit) {  // the rest stays one piece, with the blanks inside it
    const size_t cut = from_right ? words.size() - limit : limit;
    const auto rest = from_right ? std::pair(words.front().first, words[cut - 1].second)
                                 : std::pair(words[cut].first, text.size());
    const std::string whole = stripped(
        text.substr(rest.first, rest.second - rest.first), from_right, false, python_space);
    from_right ? words.erase(words.begin(), words.begin() + static_cast<ptrdiff_t>(cut))
               : words.erase(words.begin() + static_cast<ptrdiff_t>(cut), words.end());
    for (const auto& [begin, end] : words) {
      out.emplace_back(text.substr(begin, end - begin));
    }
    out.insert(from_right ? out.begin() : out.end(), whole);
    return out;
  }
  for (const auto& [begin, end] : words) {
    out.emplace_back(text.substr(begin, end - begin));
  }
  return out;
}

std::vector<std::string> split_by(std::string_view text,
                                  std::string_view separator,
                                  int64_t most,
                                  bool from_right) {
  charge_search(text, separator);
  std::vector<std::string> out;
  int64_t left = most < 0 ? INT64_MAX : most;
  if (from_right) {
    size_t end = text.size();
    for (; left > 0 && end >= separator.size(); --left) {
      const size_t at = text.substr(0, end).rfind(separator);
      if (at == std::string_view::npos) {
        break;
      }
      out.emplace_back(text.substr(at + separator.size(), end - at - separator.size()));
      end = at;
    }
    out.emplace_back(text.substr(0, end));
    std::reverse(out.begin(), out.end());
    return out;
  }
  size_t begin = 0;
  for (size_t at = text.find(separator); at != std::string_view::npos && left > 0;
       at = text.find(separator, begin)) {
    out.emplace_back(text.substr(begin, at - begin));
    begin = at + separator.size();
    --left;
  }
  out.emplace_back(text.substr(begin));
  return out;
}

std::vector<std::string> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string> out;
  size_t begin = 0;
  for (size_t i = 0; i < text.size();) {
    const size_t at = i;
    const uint32_t c = next_char(text, i);
    const bool ends = (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 ||
                      c == 0x2028 || c == 0x2029;
    if (!ends) {
      continue;
    }
    i += c == '\r' && i < text.size() && text[i] == '\n' ? 1 : 0;
    out.emplace_back(text.substr(begin, (keep_ends ? i : at) - begin));
    begin = i;
  }
  if (begin < text.size()) {
    out.emplace_back(text.substr(begin));
  }
  return out;
}

void charge_search(std::string_view text, std::string_view wanted) {
  const auto blocks = static_cast<int64_t>(text.size() / 1024);
  spend(1 + blocks + blocks * static_cast<int64_t>(wanted.size() / 64));
}

int64_t count_of(std::string_view text, std::string_view wanted) {
  if (wanted.empty()) {
    return length(Value::string(std::string(text))) + 1;
  }
  charge_search(text, wanted);
  int64_t count = 0;
  for (size_t at = text.find(wanted); at != std::string_view::npos;
       at = text.find(wanted, at + wanted.size())) {
    ++count;
  }
  return count;
}

std::string replaced(std::string_view text,
                     std::string_view from,
                     std::string_view to,
                     int64_t most,
                     const Interpreter& interpreter) {
  charge_search(text, from);
  int64_t left = most < 0 ? INT64_MAX : most;
  std::string out;
  const auto put = [&](std::string_view part) {
    interpreter.check_size(out.size() + part.size());
    out += part;
  };
  if (from.empty()) {  // between all characters
    for (size_t i = 0; i < text.size();) {
      put(left-- > 0 ? to : "");
      const size_t size = char_length(static_cast<unsigned char>(text[i]));
      put(text.substr(i, size));
      i += size;
    }
    put(left > 0 ? to : "");
    return out;
  }
  size_t begin = 0;
  for (size_t at = text.find(from); at != std::string_view::npos && left > 0;
       at = text.find(from, begin)) {
    put(text.substr(begin, at - begin));
    put(to);
    begin = at + from.size();
    --left;
  }
  put(text.substr(begin));
  return out;
}

std::string pad(std::string_view text,
                int64_t width,
                std::string_view fill,
                char align,
                const Interpreter& interpreter) {
  if (to_chars(fill).size() != 1) {
    fail("a fill must be one character");
  }
  const int64_t missing = width - length(Value::string(std::string(text)));
  if (missing <= 0) {
    return std::string(text);
  }
  interpreter.check_size(static_cast<size_t>(missing) * fill.size() + text.size());
  const int64_t left = align == '<'   ? 0
                       : align == '>' ? missing
                                      : missing / 2 + (missing & width & 1);
  std::string out;
  for (int64_t i = 0; i < left; ++i) {
    out += fill;
  }
  out += text;
  for (int64_t i = left; i < missing; ++i) {
    out += fill;
  }
  return out;
}

}  // namespace kamerton::text::jinja
