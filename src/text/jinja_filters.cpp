// SPDX-License-Identifier: Apache-2.0
// Filters on single values; those on sequences are in jinja_sequence_filters.cpp.
#include <charconv>
#include <cmath>

#include "jinja_filter_table.h"
#include "jinja_strings.h"
#include "unicode.h"

namespace kamerton::text::jinja {
namespace {

using In = Interpreter&;
using Val = const Value&;
using Args = Arguments&;

template <std::string (*Change)(std::string_view)>
Value changed(In interpreter, Val value, Args arguments) {
  const Bound args("the filter", arguments, {});
  return interpreter.text(Change(to_str(value)));
}

Value default_filter(In, Val value, Args arguments) {
  const Bound args("default", arguments, {"default_value", "boolean"});
  const bool missing = value.is(Type::Undefined) || (args.boolean(1, false) && !value.truthy());
  return missing ? (args[0] != nullptr ? *args[0] : Value::string("")) : value;
}

Value tojson(In interpreter, Val value, Args arguments) {
  const Bound args("tojson", arguments, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ensure_ascii = args.boolean(0, false);
  style.sort_keys = args.boolean(3, false);
  if (args[1] != nullptr && !args[1]->is(Type::None)) {
    style.indented = true;
    style.item_separator = ",";
    if (args[1]->is(Type::String)) {
      style.indent = args[1]->text();
    } else {
      style.indent.assign(
          static_cast<size_t>(std::min<int64_t>(std::max<int64_t>(to_index(*args[1]), 0), 64)),
          ' ');
    }
  }
  if (args[2] != nullptr && !args[2]->is(Type::None)) {
    const std::vector<Value> pair = iterate(*args[2]);
    if (pair.size() != 2) {
      fail("tojson's separators must be a pair");
    }
    style.item_separator = string_of(pair[0], "tojson");
    style.key_separator = string_of(pair[1], "tojson");
  }
  return interpreter.text(to_json(value, style));
}

Value trim(In interpreter, Val value, Args arguments) {
  const Bound args("trim", arguments, {"chars"});
  const bool given = args[0] != nullptr && !args[0]->is(Type::None);
  const std::string text = to_str(value);
  return interpreter.text(given ? strip_chars(text, string_of(*args[0], "trim"), true, true)
                                : strip_blanks(text, true, true));
}

Value replace(In interpreter, Val value, Args arguments) {
  const Bound args("replace", arguments, {"old", "new", "count"});
  return interpreter.text(replaced(
      to_str(value), to_str(args.need(0)), to_str(args.need(1)), args.integer(2, -1), interpreter));
}

/// Words as the title filter sees them: after blanks, hyphens and opening brackets.
std::string title(std::string_view text) {
  std::string out;
  size_t begin = 0;
  const auto is_edge = [&](size_t i) {
    return (char_flags(char_at(text, i)) & kSpace) != 0 ||
           std::string_view("-({[<").find(text[i]) != std::string_view::npos;
  };
  for (size_t i = 0; i < text.size();) {
    const bool edge = is_edge(i);
    begin = i;
    while (i < text.size() && is_edge(i) == edge) {
      i += char_length(static_cast<unsigned char>(text[i]));
    }
    const std::string_view part = text.substr(begin, i - begin);
    out += edge ? std::string(part) : capitalized(part);
  }
  return out;
}

Value to_integer(double number, Val otherwise) {
  return std::isfinite(number) && std::fabs(number) < 1e37
             ? Value::integer(static_cast<Integer>(number))
             : otherwise;
}

bool read_double(std::string_view text, double& out) {
  const std::string body = strip_blanks(text, true, true);
  const std::string_view digits = std::string_view(body).substr(body.starts_with('+') ? 1 : 0);
  const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), out);
  return !digits.empty() && read.ec == std::errc() && read.ptr == digits.data() + digits.size();
}

Value int_filter(In, Val value, Args arguments) {
  const Bound args("int", arguments, {"default", "base"});
  const Value otherwise = args[0] != nullptr ? *args[0] : Value::integer(0);
  if (value.is(Type::Float)) {
    return to_integer(value.as_double(), otherwise);
  }
  if (value.is_number()) {
    return Value::integer(value.as_int());
  }
  if (!value.is(Type::String)) {
    return otherwise;
  }
  const std::string body = strip_blanks(value.text(), true, true);
  const auto base = static_cast<int>(args.integer(1, 10));
  if (base < 2 || base > 36) {
    fail("int's base must be 2 to 36");
  }
  int64_t number = 0;
  const size_t from = body.starts_with('+') ? 1 : 0;
  const auto read = std::from_chars(body.data() + from, body.data() + body.size(), number, base);
  if (read.ec == std::errc() && read.ptr == body.data() + body.size() && body.size() > from) {
    return Value::integer(number);
  }
  double real = 0;
  return read_double(value.text(), real) ? to_integer(real, otherwise) : otherwise;
}

Value float_filter(In, Val value, Args arguments) {
  const Bound args("float", arguments, {"default"});
  double real = 0;
  if (value.is_number()) {
    return Value::real(value.as_double());
  }
  if (value.is(Type::String) && read_double(value.text(), real)) {
    return Value::real(real);
  }
  return args[0] != nullptr ? *args[0] : Value::real(0);
}

Value abs_filter(In, Val value, Args) {
  if (!value.is_number()) {
    fail(std::string("abs needs a number, not ") + type_name(value));
  }
  return value.as_double() < 0 ? negated(value) : value;
}

Value round_filter(In, Val value, Args arguments) {
  const Bound args("round", arguments, {"precision", "method"});
  const int64_t precision = args.integer(0, 0);
  const std::string method = args.string(1, "common");
  if (!value.is_number() || precision < -30 || precision > 30) {
    fail("round needs a number and a precision of -30 to 30");
  }
  if (method == "common" && !value.is(Type::Float) && precision >= 0) {
    return Value::integer(value.as_int());
  }
  if (method == "common" && precision >= 0) {
    Value text = Value::string(percent_format("%." + std::to_string(precision) + "f", value));
    double real = 0;
    read_double(text.text(), real);
    return Value::real(real);
  }
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = value.as_double() * scale;
  if (method != "common" && method != "ceil" && method != "floor") {
    fail("round's method must be common, ceil or floor");
  }
  const double whole = method == "ceil"    ? std::ceil(scaled)
                       : method == "floor" ? std::floor(scaled)
                                           : std::nearbyint(scaled);
  return Value::real(whole / scale);
}

Value string_filter(In interpreter, Val value, Args) {
  return value.is(Type::String) ? value : interpreter.text(to_str(value));
}

Value escape(In interpreter, Val value, Args) {
  return value.is_markup() ? value : Value::markup(interpreter.text(escaped(to_str(value))).text());
}

Value force_escape(In interpreter, Val value, Args) {
  return Value::markup(interpreter.text(escaped(to_str(value))).text());
}

Value safe(In, Val value, Args) {
  return Value::markup(to_str(value));
}

Value indent(In interpreter, Val value, Args arguments) {
  const Bound args("indent", arguments, {"width", "first", "blank"});
  const bool literal = args[0] != nullptr && args[0]->is(Type::String);
  const int64_t width = literal ? 0 : args.integer(0, 4);
  if (width < 0 || width > 1000) {
    fail("indent's width must be 0 to 1000");
  }
  const std::string gap = literal ? args[0]->text() : std::string(static_cast<size_t>(width), ' ');
  std::string out = args.boolean(1, false) ? gap : "";
  const std::vector<std::string> lines = split_by(to_str(value), "\n", -1, false);
  for (size_t i = 0; i < lines.size(); ++i) {
    const bool wanted = i > 0 && (args.boolean(2, false) || !lines[i].empty());
    out += (i > 0 ? "\n" : "") + (wanted ? gap : "") + lines[i];
    interpreter.check_size(out.size());
  }
  return interpreter.text(std::move(out));
}

Value truncate(In interpreter, Val value, Args arguments) {
  const Bound args("truncate", arguments, {"length", "killwords", "end", "leeway"});
  const std::u32string text = to_chars(to_str(value));
  const std::string end = args.string(2, "...");
  const int64_t ending = length(Value::string(end));
  const int64_t wanted = args.integer(0, 255);
  if (wanted < ending) {
    fail("truncate's length is shorter than its end");
  }
  if (static_cast<int64_t>(text.size()) <= wanted + args.integer(3, 5)) {
    return value;
  }
  std::string out;
  for (const char32_t c : text.substr(0, static_cast<size_t>(wanted - ending))) {
    append_char(out, c);
  }
  if (!args.boolean(1, false)) {
    out = split_by(out, " ", 1, true)[0];
  }
  return interpreter.text(out + end);
}

Value center(In interpreter, Val value, Args arguments) {
  const Bound args("center", arguments, {"width"});
  return interpreter.text(pad(to_str(value), args.integer(0, 80), " ", '^', interpreter));
}

Value wordcount(In, Val value, Args) {
  int64_t count = 0;
  bool inside = false;
  const std::string text = to_str(value);
  for (size_t i = 0; i < text.size();) {
    const bool word = (char_flags(next_char(text, i)) & kWord) != 0;
    count += word && !inside ? 1 : 0;
    inside = word;
  }
  return Value::integer(count);
}

Value format(In interpreter, Val value, Args arguments) {
  if (!arguments.named.empty() && !arguments.positional.empty()) {
    fail("format takes values by place or by name, not both");
  }
  DictData named;
  for (const auto& [name, given] : arguments.named) {
    set_item(named, Value::string(name), given);
  }
  const Value values = named.items.empty() ? Value::list(arguments.positional, Type::Tuple)
                                           : Value::dict(std::move(named));
  return interpreter.text(percent_format(to_str(value), values));
}

Value striptags(In interpreter, Val value, Args) {
  std::string out;
  bool inside = false;
  for (const char c : to_str(value)) {
    inside = c == '<' || inside;
    if (!inside) {
      out.push_back(c);
    }
    inside = inside && c != '>';
  }
  std::string joined;
  for (const std::string& word : split_blanks(out, -1, false)) {
    joined += (joined.empty() ? "" : " ") + word;
  }
  return interpreter.text(std::move(joined));
}

std::string quoted(std::string_view text, bool keep_slash) {
  constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = (byte < 0x80 && (char_flags(byte) & (kLetter | kNumber)) != 0) ||
                       std::string_view("_.-~").find(c) != std::string_view::npos ||
                       (keep_slash && c == '/');
    if (plain) {
      out.push_back(c);
    } else {
      out += {'%', kHex[byte >> 4], kHex[byte & 15]};
    }
  }
  return out;
}

Value urlencode(In interpreter, Val value, Args) {
  if (value.is(Type::String) || !(value.is(Type::Dict) || value.is_list_like())) {
    return interpreter.text(quoted(to_str(value), true));
  }
  std::string out;
  const auto put = [&](Val key, Val item) {
    out +=
        (out.empty() ? "" : "&") + quoted(to_str(key), false) + "=" + quoted(to_str(item), false);
  };
  if (value.is(Type::Dict)) {
    for (const Pair& pair : value.dict_data().items) {
      put(pair.key, pair.value);
    }
  } else {
    for (Val pair : value.items()) {
      const std::vector<Value> parts = iterate(pair);
      if (parts.size() != 2) {
        fail("urlencode needs pairs");
      }
      put(parts[0], parts[1]);
    }
  }
  return interpreter.text(std::move(out));
}

Value filesizeformat(In interpreter, Val value, Args arguments) {
  const Bound args("filesizeformat", arguments, {"binary"});
  const bool binary = args.boolean(0, false);
  const double base = binary ? 1024 : 1000;
  const double bytes = value.as_double();
  if (!value.is_number()) {
    fail("filesizeformat needs a number");
  }
  if (bytes == 1 || bytes < base) {
    return interpreter.text(bytes == 1 ? "1 Byte"
                                       : int_text(static_cast<Integer>(bytes)) + " Bytes");
  }
  constexpr const char* kUnits[] = {"k", "M", "G", "T", "P", "E", "Z", "Y"};
  double unit = base;
  size_t i = 0;
  while (i < 7 && bytes >= unit * base) {
    unit *= base;
    ++i;
  }
  std::string prefix = kUnits[i];
  prefix = binary ? (i == 0 ? "Ki" : prefix + "i") : prefix;
  return interpreter.text(percent_format("%.1f ", Value::real(bytes / unit)) + prefix + "B");
}

Value xmlattr(In interpreter, Val value, Args arguments) {
  const Bound args("xmlattr", arguments, {"autospace"});
  std::string out;
  if (!value.is(Type::Dict)) {
    fail("xmlattr needs a dict");
  }
  for (const Pair& pair : value.dict_data().items) {
    if (pair.value.is(Type::None) || pair.value.is(Type::Undefined)) {
      continue;
    }
    const std::string key = to_str(pair.key);
    if (key.find_first_of(" \t\n\f\r/>=") != std::string::npos) {
      fail("xmlattr met a key that is no attribute's name");
    }
    out += (out.empty() ? "" : " ") + escaped(key) + "=\"" + escaped(to_str(pair.value)) + "\"";
  }
  return interpreter.text((args.boolean(0, true) && !out.empty() ? " " : "") + out);
}

}  // namespace

void add_value_filters(FilterTable& t) {
  t["upper"] = changed<upper>;
  t["lower"] = changed<lower>;
  t["capitalize"] = changed<capitalized>;
  t["title"] = changed<title>;
  t["default"] = t["d"] = default_filter;
  t["tojson"] = tojson;
  t["trim"] = trim;
  t["replace"] = replace;
  t["int"] = int_filter;
  t["float"] = float_filter;
  t["abs"] = abs_filter;
  t["round"] = round_filter;
  t["string"] = string_filter;
  t["escape"] = t["e"] = escape;
  t["forceescape"] = force_escape;
  t["safe"] = safe;
  t["indent"] = indent;
  t["truncate"] = truncate;
  t["center"] = center;
  t["wordcount"] = wordcount;
  t["format"] = format;
  t["striptags"] = striptags;
  t["urlencode"] = urlencode;
  t["filesizeformat"] = filesizeformat;
  t["xmlattr"] = xmlattr;
}

FilterFunction find_filter(std::string_view name) {
  static const FilterTable table = [] {
    FilterTable t;
    add_value_filters(t);
    add_sequence_filters(t);
    return t;
  }();
  const auto found = table.find(name);
  return found == table.end() ? nullptr : found->second;
}

}  // namespace kamerton::text::jinja
