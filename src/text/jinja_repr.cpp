// SPDX-License-Identifier: Apache-2.0
// How Python writes values: str(), repr(), json.dumps().
#include <algorithm>
#include <charconv>
#include <cmath>

#include "jinja_value.h"
#include "unicode.h"

namespace kamerton::text::jinja {

std::string int_text(Integer value) {
  const bool negative = value < 0;
  std::string digits;
  do {
    const auto digit = static_cast<int>(value % 10);
    digits.push_back(static_cast<char>('0' + (digit < 0 ? -digit : digit)));
    value /= 10;
  } while (value != 0);
  if (negative) {
    digits.push_back('-');
  }
  std::reverse(digits.begin(), digits.end());
  return digits;
}

/// The shortest digits that read back as the value; exponent form below 1e-4 and from 1e16 on.
std::string float_repr(double value) {
  if (std::isnan(value)) {
    return "nan";
  }
  if (std::isinf(value)) {
    return value < 0 ? "-inf" : "inf";
  }
  char buffer[64];
  const auto written =
      std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific);
  const std::string text(buffer, written.ptr);
  const size_t e = text.find('e');
  const int exponent = std::stoi(text.substr(e + 1));
  if (exponent < -4 || exponent >= 16) {
    return text;  // to_chars writes at least two digits of exponent, as Python does
  }
  std::string fixed(400, '\0');
  const auto end =
      std::to_chars(fixed.data(), fixed.data() + fixed.size(), value, std::chars_format::fixed);
  fixed.resize(static_cast<size_t>(end.ptr - fixed.data()));
  return fixed.find('.') == std::string::npos ? fixed + ".0" : fixed;
}

namespace {

bool is_printable(uint32_t c) {
  const uint16_t flags = char_flags(c);
  return (flags & (kControl | kUnassigned)) == 0 && ((flags & kSpace) == 0 || c == ' ');
}

void append_hex(std::string& out, uint32_t value, int digits) {
  constexpr char kHex[] = "0123456789abcdef";
  for (int shift = (digits - 1) * 4; shift >= 0; shift -= 4) {
    out.push_back(kHex[value >> shift & 15]);
  }
}

}  // namespace

std::string string_repr(std::string_view value) {
  const bool doubled =
      value.find('\'') != std::string_view::npos && value.find('"') == std::string_view::npos;
  const char quote = doubled ? '"' : '\'';
  std::string out(1, quote);
  for (size_t i = 0; i < value.size();) {
    const uint32_t c = next_char(value, i);
    if (c == '\\' || c == static_cast<uint32_t>(quote)) {
      out.push_back('\\');
      out.push_back(static_cast<char>(c));
    } else if (c == '\n' || c == '\r' || c == '\t') {
      out.append(c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t");
    } else if (is_printable(c)) {
      append_char(out, c);
    } else if (c < 0x100) {
      out.append("\\x");
      append_hex(out, c, 2);
    } else if (c < 0x10000) {
      out.append("\\u");
      append_hex(out, c, 4);
    } else {
      out.append("\\U");
      append_hex(out, c, 8);
    }
  }
  out.push_back(quote);
  return out;
}

namespace {

std::string joined_repr(const std::vector<Value>& items, const char* open, const char* close) {
  std::string out = open;
  for (size_t i = 0; i < items.size(); ++i) {
    out += (i > 0 ? ", " : "") + to_repr(items[i]);
  }
  return out + close;
}

std::string dict_repr(const Value& value) {
  std::string out = value.is(Type::Namespace) ? "<Namespace {" : "{";
  bool first = true;
  for (const Pair& pair : value.dict_data().items) {
    out += (first ? "" : ", ") + to_repr(pair.key) + ": " + to_repr(pair.value);
    first = false;
  }
  return out + (value.is(Type::Namespace) ? "}>" : "}");
}

}  // namespace

std::string to_repr(const Value& value) {
  spend(4);
  switch (value.type()) {
    case Type::Undefined:
      return "Undefined";
    case Type::String:
      return value.is_markup() ? "Markup(" + string_repr(value.text()) + ")"
                               : string_repr(value.text());
    case Type::List:
      return value.list_data().view != nullptr
                 ? std::string(value.list_data().view) + joined_repr(value.items(), "([", "])")
                 : joined_repr(value.items(), "[", "]");
    case Type::Tuple:
      return joined_repr(value.items(), "(", value.items().size() == 1 ? ",)" : ")");
    case Type::Dict:
    case Type::Namespace:
      return dict_repr(value);
    default:
      return to_str(value);
  }
}

std::string to_str(const Value& value) {
  switch (value.type()) {
    case Type::Undefined:
      return "";
    case Type::None:
      return "None";
    case Type::Bool:
      return value.as_int() != 0 ? "True" : "False";
    case Type::Int:
      return int_text(value.as_int());
    case Type::Float:
      return float_repr(value.as_double());
    case Type::String:
      return value.text();
    case Type::Iterator:
      fail("a generator was printed; add '| list' or '| join'");
    case Type::Function:
      fail("the function '" + value.function_data().name + "' was printed; add '()'");
    case Type::Loop:
      fail("the loop itself was printed");
    default:
      return to_repr(value);
  }
}

namespace {

void append_json_string(std::string& out, std::string_view text, bool ascii) {
  out.push_back('"');
  for (size_t i = 0; i < text.size();) {
    const uint32_t c = next_char(text, i);
    constexpr std::string_view kShort = "\"\\\n\r\t\b\f";
    const size_t at = c < 0x80 ? kShort.find(static_cast<char>(c)) : std::string_view::npos;
    if (at != std::string_view::npos) {
      out.push_back('\\');
      out.push_back("\"\\nrtbf"[at]);
    } else if (c < 0x20 || (ascii && c >= 0x7F && c < 0x10000 && c != 0x7F)) {
      out.append("\\u");
      append_hex(out, c, 4);
    } else if (ascii && c >= 0x10000) {
      out.append("\\u");
      append_hex(out, 0xD800 + ((c - 0x10000) >> 10), 4);
      out.append("\\u");
      append_hex(out, 0xDC00 + ((c - 0x10000) & 0x3FF), 4);
    } else {
      append_char(out, c);
    }
  }
  out.push_back('"');
}

class JsonWriter {
 public:
  explicit JsonWriter(const JsonStyle& style) : style_(style) {}
  std::string out;

  void write(const Value& value, int depth) {
    spend(1 + static_cast<int64_t>(style_.indent.size()));
    if (depth > 200) {
      fail("tojson met a value nested deeper than 200 levels");
    }
    switch (value.type()) {
      case Type::None:
        out += "null";
        break;
      case Type::Bool:
        out += value.as_int() != 0 ? "true" : "false";
        break;
      case Type::Int:
        out += int_text(value.as_int());
        break;
      case Type::Float:
        out += real(value.as_double());
        break;
      case Type::String:
        append_json_string(out, value.text(), style_.ensure_ascii);
        break;
      case Type::List:
      case Type::Tuple:
        write_list(value, depth);
        break;
      case Type::Dict:
        write_dict(value, depth);
        break;
      default:
        fail(std::string("tojson cannot write a value of type ") + type_name(value));
    }
  }

 private:
  static std::string real(double value) {
    return std::isnan(value)   ? "NaN"
           : std::isinf(value) ? (value < 0 ? "-Infinity" : "Infinity")
                               : float_repr(value);
  }

  void new_line(int depth) {
    if (style_.indented) {
      out.push_back('\n');
      for (int i = 0; i < depth; ++i) {
        out += style_.indent;
      }
    }
  }

  void write_list(const Value& value, int depth) {
    if (value.list_data().view != nullptr) {
      fail(std::string("tojson cannot write ") + value.list_data().view);
    }
    if (value.items().empty()) {
      out += "[]";
      return;
    }
    out.push_back('[');
    for (size_t i = 0; i < value.items().size(); ++i) {
      out += i > 0 ? style_.item_separator : "";
      new_line(depth + 1);
      write(value.items()[i], depth + 1);
    }
    new_line(depth);
    out.push_back(']');
  }

  void write_dict(const Value& value, int depth) {
    std::vector<Pair> pairs = value.dict_data().items;
    if (pairs.empty()) {
      out += "{}";
      return;
    }
    if (style_.sort_keys) {
      std::stable_sort(pairs.begin(), pairs.end(), [](const Pair& a, const Pair& b) {
        return compare(a.key, b.key) < 0;
      });
    }
    out.push_back('{');
    for (size_t i = 0; i < pairs.size(); ++i) {
      out += i > 0 ? style_.item_separator : "";
      new_line(depth + 1);
      append_json_string(out, key_text(pairs[i].key), style_.ensure_ascii);
      out += style_.key_separator;
      write(pairs[i].value, depth + 1);
    }
    new_line(depth);
    out.push_back('}');
  }

  static std::string key_text(const Value& key) {
    switch (key.type()) {
      case Type::String:
        return key.text();
      case Type::None:
        return "null";
      case Type::Bool:
        return key.as_int() != 0 ? "true" : "false";
      case Type::Int:
      case Type::Float:
        return to_str(key);
      default:
        fail("tojson needs keys that are strings or numbers");
    }
  }

  const JsonStyle& style_;
};

}  // namespace

std::string to_json(const Value& value, const JsonStyle& style) {
  JsonWriter writer(style);
  writer.write(value, 0);
  return std::move(writer.out);
}

}  // namespace kamerton::text::jinja
