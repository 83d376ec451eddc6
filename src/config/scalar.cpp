// SPDX-License-Identifier: Apache-2.0
#include "scalar.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cmath>

#include <fmt/format.h>

namespace kamerton::config {
namespace {

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

size_t count_digits(std::string_view text) {
  size_t n = 0;
  while (n < text.size() && is_digit(text[n])) {
    ++n;
  }
  return n;
}

std::string_view without_sign(std::string_view text) {
  return !text.empty() && (text[0] == '-' || text[0] == '+') ? text.substr(1) : text;
}

bool is_integer_text(std::string_view text) {
  text = without_sign(text);
  return !text.empty() && count_digits(text) == text.size() && (text.size() == 1 || text[0] != '0');
}

/// digits [. digits] [e digits], at least one digit in front, no leading zero before another digit.
bool is_number_text(std::string_view text) {
  text = without_sign(text);
  const size_t whole = count_digits(text);
  if (whole > 1 && text[0] == '0') {
    return false;
  }
  text.remove_prefix(whole);
  size_t fraction = 0;
  if (!text.empty() && text[0] == '.') {
    fraction = count_digits(text.substr(1));
    text.remove_prefix(1 + fraction);
  }
  if (whole + fraction == 0) {
    return false;
  }
  if (!text.empty() && (text[0] == 'e' || text[0] == 'E')) {
    text = without_sign(text.substr(1));
    return !text.empty() && count_digits(text) == text.size();
  }
  return text.empty();
}

template <class Number>
std::optional<Number> convert(std::string_view text) {
  if (!text.empty() && text[0] == '+') {
    text.remove_prefix(1);
  }
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    return std::nullopt;
  }
  return value;
}

std::string format_bound(double value) {
  return std::abs(value) < 1e15 && value == std::floor(value) ? fmt::format("{:.0f}", value)
                                                              : fmt::format("{}", value);
}

bool is_reserved_word(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) {
    return static_cast<char>(std::tolower(c));
  });
  static constexpr std::array<std::string_view, 10> kWords = {
      "true", "false", "null", "yes", "no", "on", "off", "y", "n", "none"};
  return std::find(kWords.begin(), kWords.end(), text) != kWords.end();
}

bool is_safe_plain(const std::string& text) {
  if (text.empty() || !(std::isalpha(static_cast<unsigned char>(text[0])) != 0 || text[0] == '/' ||
                        text[0] == '_')) {
    return false;
  }
  const bool plain = std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return c < 0x80 &&
           (std::isalnum(c) != 0 || c == '_' || c == '.' || c == '/' || c == '-' || c == '+');
  });
  return plain && !is_reserved_word(text);
}

}  // namespace

std::optional<bool> read_bool(const YamlNode& node) {
  if (node.kind != YamlNode::Kind::Plain || (node.text != "true" && node.text != "false")) {
    return std::nullopt;
  }
  return node.text == "true";
}

std::optional<int64_t> read_int(const YamlNode& node) {
  if (node.kind != YamlNode::Kind::Plain || !is_integer_text(node.text)) {
    return std::nullopt;
  }
  return convert<int64_t>(node.text);
}

std::optional<double> read_double(const YamlNode& node) {
  if (node.kind != YamlNode::Kind::Plain || !is_number_text(node.text)) {
    return std::nullopt;
  }
  return convert<double>(node.text);
}

std::optional<std::string> read_string(const YamlNode& node) {
  if (!node.is_scalar() || read_bool(node).has_value()) {
    return std::nullopt;
  }
  return node.text;
}

std::string describe_found(const YamlNode& node) {
  constexpr size_t kShown = 80;
  const std::string shown =
      node.text.size() <= kShown ? node.text : node.text.substr(0, kShown) + "...";
  switch (node.kind) {
    case YamlNode::Kind::Null:
      return "nothing (null)";
    case YamlNode::Kind::Quoted:
      return "the quoted text \"" + shown + "\"";
    case YamlNode::Kind::List:
      return "a list of " + std::to_string(node.items.size());
    case YamlNode::Kind::Map:
      return "a section with " + std::to_string(node.entries.size()) + " keys";
    case YamlNode::Kind::Plain:
      break;
  }
  if (read_bool(node)) {
    return shown;
  }
  if (is_integer_text(node.text)) {
    return "the integer " + shown;
  }
  return (is_number_text(node.text) ? "the number " : "the text ") + shown;
}

bool in_range(double value, const Doc& doc) {
  const bool above = doc.min_exclusive ? value > doc.min : value >= doc.min;
  return above && value <= doc.max;
}

std::string describe_allowed(const std::string& noun, const Doc& doc) {
  if (!doc.choices.empty()) {
    return fmt::format("one of {}", fmt::join(doc.choices, ", "));
  }
  const bool has_min = std::isfinite(doc.min);
  const bool has_max = std::isfinite(doc.max);
  if (has_min && has_max) {
    return doc.min_exclusive
               ? fmt::format(
                     "{} > {} and <= {}", noun, format_bound(doc.min), format_bound(doc.max))
               : fmt::format(
                     "{} from {} to {}", noun, format_bound(doc.min), format_bound(doc.max));
  }
  if (has_min) {
    return fmt::format("{} {} {}", noun, doc.min_exclusive ? ">" : ">=", format_bound(doc.min));
  }
  return has_max ? fmt::format("{} <= {}", noun, format_bound(doc.max)) : noun;
}

std::string format_double(double value) {
  std::string text = fmt::format("{}", value);
  if (text.find_first_of(".en") == std::string::npos) {
    text += ".0";
  }
  return text;
}

std::string quote_string(const std::string& text) {
  if (is_safe_plain(text)) {
    return text;
  }
  std::string result = "\"";
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    const std::string_view rest = std::string_view(text).substr(i);
    if (c == '"' || c == '\\') {
      result += {'\\', static_cast<char>(c)};
    } else if (c == '\n') {
      result += "\\n";
    } else if (c == '\t') {
      result += "\\t";
    } else if (c < 0x20 || c == 0x7F) {
      result += fmt::format("\\x{:02x}", c);
    } else if (c == 0xC2 && rest.size() > 1 &&
               static_cast<unsigned char>(rest[1]) < 0xA0) {  // C1 controls
      result += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[++i]));
    } else if (rest.starts_with("\xE2\x80\xA8") ||
               rest.starts_with("\xE2\x80\xA9")) {  // line and paragraph separator
      result += text[i + 2] == '\xA8' ? "\\u2028" : "\\u2029";
      i += 2;
    } else if (rest.starts_with("\xEF\xBB\xBF")) {  // byte order mark
      result += "\\ufeff";
      i += 2;
    } else {
      result += static_cast<char>(c);
    }
  }
  return result + "\"";
}

}  // namespace kamerton::config
