// SPDX-License-Identifier: Apache-2.0
// Bound arguments, and Python's ways to format: "%", str.format, HTML escapes.
#include <algorithm>
#include <cstdio>

#include "jinja_interpreter.h"

namespace kamerton::text::jinja {

Bound::Bound(const char* function, Arguments& arguments, std::initializer_list<const char*> names)
    : function_(function), values_(names.size()) {
  if (arguments.positional.size() > names.size()) {
    fail(std::string(function) + " takes at most " + std::to_string(names.size()) + " arguments");
  }
  for (size_t i = 0; i < arguments.positional.size(); ++i) {
    values_[i] = arguments.positional[i];
  }
  for (const auto& [name, value] : arguments.named) {
    const auto found =
        std::find_if(names.begin(), names.end(), [&](const char* known) { return name == known; });
    if (found == names.end() || values_[static_cast<size_t>(found - names.begin())]) {
      fail(std::string(function) + " does not take the argument '" + name + "'");
    }
    values_[static_cast<size_t>(found - names.begin())] = value;
  }
}

const Value& Bound::need(size_t i) const {
  if (!values_[i]) {
    fail(std::string(function_) + " misses an argument");
  }
  return *values_[i];
}

std::string Bound::string(size_t i, const std::string& otherwise) const {
  return !values_[i] || values_[i]->is(Type::None) ? otherwise : string_of(*values_[i], function_);
}

int64_t Bound::integer(size_t i, int64_t otherwise) const {
  return !values_[i] || values_[i]->is(Type::None) ? otherwise : to_index(*values_[i]);
}

bool Bound::boolean(size_t i, bool otherwise) const {
  return values_[i] ? values_[i]->truthy() : otherwise;
}

const std::string& string_of(const Value& value, const char* function) {
  if (!value.is(Type::String)) {
    fail(std::string(function) + " needs a string, not " + type_name(value));
  }
  return value.text();
}

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '"':
        out += "&#34;";
        break;
      default:
        out.push_back(c);
    }
  }
  return out;
}

namespace {

constexpr int64_t kMaxWidth = 10000;

/// [[fill]align][sign][#][0][width][,][.precision][type]
struct Spec {
  std::string fill = " ";
  char align = '\0';
  char sign = '-';
  bool zero = false;
  bool comma = false;
  int64_t width = 0;
  int64_t precision = -1;
  char type = '\0';
};

int64_t read_number(const std::string& text, size_t& i) {
  int64_t value = 0;
  while (i < text.size() && text[i] >= '0' && text[i] <= '9') {
    value = std::min<int64_t>(value * 10 + (text[i++] - '0'), kMaxWidth + 1);
  }
  if (value > kMaxWidth) {
    fail("a format's width is larger than 10000");
  }
  return value;
}

std::string padded(const std::string& body, const Spec& spec, char natural) {
  const int64_t missing = spec.width - length(Value::string(body));
  if (missing <= 0) {
    return body;
  }
  std::string out;
  const char align = spec.align != '\0' ? spec.align : spec.zero ? '=' : natural;
  const std::string fill = spec.zero && spec.align == '\0' ? "0" : spec.fill;
  const bool signed_body = !body.empty() && (body[0] == '-' || body[0] == '+');
  const int64_t left = align == '<' ? 0 : align == '^' ? missing / 2 : missing;
  out += align == '=' && signed_body ? body.substr(0, 1) : "";
  for (int64_t i = 0; i < left; ++i) {
    out += fill;
  }
  out += align == '=' && signed_body ? body.substr(1) : body;
  for (int64_t i = left; i < missing; ++i) {
    out += fill;
  }
  return out;
}

std::string with_commas(std::string digits) {
  size_t end = digits.find('.');
  end = end == std::string::npos ? digits.size() : end;
  const size_t begin = !digits.empty() && digits[0] == '-' ? 1 : 0;
  for (size_t i = end; i > begin + 3; i -= 3) {
    digits.insert(i - 3, ",");
  }
  return digits;
}

std::string real_text(double value, int64_t precision, char type) {
  const char format[] = {'%', '.', '*', type, '\0'};
  std::string out(static_cast<size_t>(400 + precision), '\0');
  const int size =
      std::snprintf(out.data(), out.size(), format, static_cast<int>(precision), value);
  out.resize(static_cast<size_t>(std::max(size, 0)));
  return out;
}

std::string number_text(const Value& value, const Spec& spec) {
  std::string out;
  if (std::string_view("fFeEgG%").find(spec.type) != std::string_view::npos && spec.type != '\0') {
    const bool percent = spec.type == '%';
    out = real_text(value.as_double() * (percent ? 100 : 1),
                    spec.precision < 0 ? 6 : spec.precision,
                    percent ? 'f' : spec.type);
    out += percent ? "%" : "";
  } else if (value.is(Type::Float)) {
    out = spec.precision >= 0 ? real_text(value.as_double(), spec.precision, 'g')
                              : float_repr(value.as_double());
  } else if (spec.type == 'x' || spec.type == 'X' || spec.type == 'o') {
    const Integer number = value.as_int() < 0 ? -value.as_int() : value.as_int();
    const char format[] = {'%', 'l', spec.type, '\0'};
    char buffer[64];
    std::snprintf(buffer, sizeof buffer, format, static_cast<unsigned long>(number));
    out = (value.as_int() < 0 ? "-" : "") + std::string(buffer);
  } else {
    out = int_text(value.as_int());
  }
  if (spec.comma) {
    out = with_commas(out);
  }
  return spec.sign != '-' && out[0] != '-' ? spec.sign + out : out;
}

std::string formatted(const Value& value, const Spec& spec) {
  const bool textual =
      spec.type == 's' || !value.is_number() || (value.is(Type::Bool) && spec.type == '\0');
  if (!textual) {
    return padded(number_text(value, spec), spec, '>');
  }
  if (spec.type != 's' && spec.type != '\0') {
    fail(std::string("a format needs a number, not ") + type_name(value));
  }
  std::string out = to_str(value);
  if (spec.precision >= 0) {
    size_t i = 0;
    for (int64_t n = 0; n < spec.precision && i < out.size(); ++n) {
      do {
        ++i;
      } while (i < out.size() && (static_cast<unsigned char>(out[i]) & 0xC0) == 0x80);
    }
    out.resize(i);
  }
  return padded(out, spec, '<');
}

Spec read_spec(const std::string& text) {
  Spec spec;
  size_t i = 0;
  const auto is_align = [](char c) { return c == '<' || c == '>' || c == '^' || c == '='; };
  if (text.size() > 1 && is_align(text[1])) {
    spec.fill = text.substr(0, 1);
    spec.align = text[1];
    i = 2;
  } else if (!text.empty() && is_align(text[0])) {
    spec.align = text[0];
    i = 1;
  }
  if (i < text.size() && (text[i] == '+' || text[i] == ' ' || text[i] == '-')) {
    spec.sign = text[i++];
  }
  if (i < text.size() && text[i] == '0') {
    spec.zero = true;
    ++i;
  }
  spec.width = read_number(text, i);
  if (i < text.size() && text[i] == ',') {
    spec.comma = true;
    ++i;
  }
  if (i < text.size() && text[i] == '.') {
    spec.precision = read_number(text, ++i);
  }
  if (i < text.size()) {
    spec.type = text[i++];
  }
  if (i != text.size() || (spec.type != '\0' && std::string_view("sdfFeEgGxXo%n").find(spec.type) ==
                                                    std::string_view::npos)) {
    fail("the format '" + text.substr(0, 40) + "' is not known");
  }
  return spec;
}

/// One directive of a "%" format, at the character behind the '%'.
std::string directive(const std::string& format, size_t& i, const Value& values, size_t& used) {
  const Value* named = nullptr;
  if (i < format.size() && format[i] == '(') {
    const size_t close = format.find(')', i);
    if (close == std::string::npos || !values.is(Type::Dict)) {
      fail("a named '%' format needs a dict");
    }
    named = values.find(std::string_view(format).substr(i + 1, close - i - 1));
    if (named == nullptr) {
      fail("a '%' format names a key that is not there");
    }
    i = close + 1;
  }
  Spec spec;
  for (; i < format.size() && std::string_view("-+ #0").find(format[i]) != std::string_view::npos;
       ++i) {
    spec.align = format[i] == '-' ? '<' : spec.align;
    spec.zero = spec.zero || format[i] == '0';
    spec.sign = format[i] == '+' || format[i] == ' ' ? format[i] : spec.sign;
  }
  spec.width = read_number(format, i);
  if (i < format.size() && format[i] == '.') {
    spec.precision = read_number(format, ++i);
  }
  if (i >= format.size()) {
    fail("a '%' format is not complete");
  }
  const char type = format[i++];
  if (type == '%') {
    return "%";
  }
  const bool tuple = values.is(Type::Tuple);
  if (named == nullptr && used >= (tuple ? values.items().size() : 1)) {
    fail("there are not enough values for a '%' format");
  }
  Value value = named != nullptr ? *named : tuple ? values.items()[used] : values;
  used += named == nullptr ? 1 : 0;
  if (type == 's' || type == 'r') {
    spec.type = 's';
    spec.align = spec.align == '\0' ? '>' : spec.align;
    return formatted(Value::string(type == 'r' ? to_repr(value) : to_str(value)), spec);
  }
  if (!value.is_number()) {
    fail(std::string("a '%' format needs a number, not ") + type_name(value));
  }
  if (type == 'd' || type == 'i' || type == 'u') {
    value = value.is(Type::Float) ? Value::integer(static_cast<Integer>(value.as_double()))
                                  : Value::integer(value.as_int());
    return formatted(value, spec);
  }
  spec.type = type;
  if (std::string_view("feEgGFxXo").find(type) == std::string_view::npos) {
    fail(std::string("the format '%") + type + "' is not known");
  }
  return formatted(value, spec);
}

}  // namespace

std::string percent_format(const std::string& format, const Value& values) {
  std::string out;
  size_t used = 0;
  for (size_t i = 0; i < format.size();) {
    if (format[i] != '%') {
      out.push_back(format[i++]);
    } else {
      out += directive(format, ++i, values, used);
    }
    spend(1);
  }
  if (!values.is(Type::Dict) && used < (values.is(Type::Tuple) ? values.items().size() : 1)) {
    fail("not all values are used by a '%' format");
  }
  return out;
}

namespace {

/// "0", "name", "0.key", "name[key]" to its value.
Value field_value(const std::string& field,
                  size_t& automatic,
                  Interpreter& interpreter,
                  const Arguments& arguments) {
  size_t i = field.find_first_of(".[");
  i = i == std::string::npos ? field.size() : i;
  const std::string first = field.substr(0, i);
  Value value;
  if (first.find_first_not_of("0123456789") == std::string::npos) {
    const size_t index = first.empty()      ? automatic++
                         : first.size() < 6 ? std::stoul(first)
                                            : SIZE_MAX;
    if (index >= arguments.positional.size()) {
      fail("format names a value that is not there");
    }
    value = arguments.positional[index];
  } else {
    const auto found = std::find_if(arguments.named.begin(),
                                    arguments.named.end(),
                                    [&](const auto& named) { return named.first == first; });
    if (found == arguments.named.end()) {
      fail("format names a value that is not there: " + first);
    }
    value = found->second;
  }
  while (i < field.size()) {
    const bool bracket = field[i] == '[';
    size_t end = bracket ? field.find(']', i) : field.find_first_of(".[", i + 1);
    if (bracket && end == std::string::npos) {
      fail("a format field is not closed");
    }
    end = end == std::string::npos ? field.size() : end;
    const std::string key = field.substr(i + 1, end - i - 1);
    const bool number = bracket && !key.empty() && key.size() < 10 &&
                        key.find_first_not_of("0123456789") == std::string::npos;
    value = number ? interpreter.item(value, Value::integer(std::stol(key)))
                   : interpreter.item(value, Value::string(key));
    i = bracket ? end + 1 : end;
  }
  return value;
}

}  // namespace

std::string brace_format(const std::string& format,
                         Interpreter& interpreter,
                         const Arguments& arguments) {
  std::string out;
  size_t automatic = 0;
  for (size_t i = 0; i < format.size(); ++i) {
    spend(1);
    const char c = format[i];
    if ((c == '{' || c == '}') && i + 1 < format.size() && format[i + 1] == c) {
      out.push_back(c);
      ++i;
    } else if (c == '{') {
      const size_t close = format.find('}', i);
      if (close == std::string::npos) {
        fail("a format field is not closed");
      }
      std::string field = format.substr(i + 1, close - i - 1);
      std::string spec;
      if (const size_t colon = field.find(':'); colon != std::string::npos) {
        spec = field.substr(colon + 1);
        field.resize(colon);
      }
      char conversion = '\0';
      if (field.size() >= 2 && field[field.size() - 2] == '!') {
        conversion = field.back();
        field.resize(field.size() - 2);
      }
      Value value = field_value(field, automatic, interpreter, arguments);
      if (conversion != '\0') {
        value = Value::string(conversion == 'r' ? to_repr(value) : to_str(value));
      }
      out += formatted(value, read_spec(spec));
      i = close;
    } else if (c == '}') {
      fail("a format holds a single '}'");
    } else {
      out.push_back(c);
    }
  }
  return out;
}

}  // namespace kamerton::text::jinja
