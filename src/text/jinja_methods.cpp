// SPDX-License-Identifier: Apache-2.0
// Methods of Python's str, list and dict.
#include <algorithm>
#include <functional>
#include <unordered_map>

#include "jinja_interpreter.h"
#include "jinja_strings.h"

namespace kamerton::text::jinja {
namespace {

using Method = std::function<Value(Interpreter&, const Value&, Arguments&)>;

std::vector<Value> strings(const std::vector<std::string>& parts) {
  std::vector<Value> out;
  for (const std::string& part : parts) {
    out.push_back(Value::string(part));
  }
  return out;
}

Value split_method(const Value& self, Arguments& arguments, bool from_right) {
  const Bound args("split", arguments, {"sep", "maxsplit"});
  const int64_t most = args.integer(1, -1);
  if (args[0] == nullptr || args[0]->is(Type::None)) {
    return Value::list(strings(split_blanks(self.text(), most, from_right)));
  }
  const std::string& separator = string_of(*args[0], "split");
  if (separator.empty()) {
    fail("split needs a separator that is not empty");
  }
  return Value::list(strings(split_by(self.text(), separator, most, from_right)));
}

Value strip_method(
    Interpreter& interpreter, const Value& self, Arguments& arguments, bool left, bool right) {
  const Bound args("strip", arguments, {"chars"});
  const bool given = args[0] != nullptr && !args[0]->is(Type::None);
  return interpreter.text(given
                              ? strip_chars(self.text(), string_of(*args[0], "strip"), left, right)
                              : strip_blanks(self.text(), left, right));
}

/// startswith and endswith, which take one string or a tuple of them.
Value edge_method(const Value& self, Arguments& arguments, bool start) {
  const Bound args(start ? "startswith" : "endswith", arguments, {"prefix"});
  const Value& wanted = args.need(0);
  for (const Value& one : wanted.is(Type::Tuple) ? wanted.items() : std::vector<Value>{wanted}) {
    const std::string& text = string_of(one, "startswith");
    if (start ? self.text().starts_with(text) : self.text().ends_with(text)) {
      return Value::boolean(true);
    }
  }
  return Value::boolean(false);
}

Value find_method(const Value& self, Arguments& arguments, bool last, bool must) {
  const Bound args("find", arguments, {"sub"});
  const std::string& wanted = string_of(args.need(0), "find");
  charge_search(self.text(), wanted);
  const size_t at = last ? self.text().rfind(wanted) : self.text().find(wanted);
  if (at == std::string::npos) {
    if (must) {
      fail("the substring was not found");
    }
    return Value::integer(-1);
  }
  return Value::integer(length(Value::string(self.text().substr(0, at))));
}

Value partition_method(const Value& self, Arguments& arguments, bool last) {
  const Bound args("partition", arguments, {"sep"});
  const std::string& separator = string_of(args.need(0), "partition");
  if (separator.empty()) {
    fail("partition needs a separator that is not empty");
  }
  const std::string& text = self.text();
  const size_t at = last ? text.rfind(separator) : text.find(separator);
  std::vector<std::string> parts{text, "", ""};
  if (at != std::string::npos) {
    parts = {text.substr(0, at), separator, text.substr(at + separator.size())};
  } else if (last) {
    parts = {"", "", text};
  }
  return Value::list(strings(parts), Type::Tuple);
}

Value pad_method(Interpreter& interpreter, const Value& self, Arguments& arguments, char align) {
  const Bound args("pad", arguments, {"width", "fillchar"});
  return interpreter.text(
      pad(self.text(), to_index(args.need(0)), args.string(1, " "), align, interpreter));
}

Value affix_method(const Value& self, Arguments& arguments, bool prefix) {
  const Bound args(prefix ? "removeprefix" : "removesuffix", arguments, {"affix"});
  const std::string& affix = string_of(args.need(0), "removeprefix");
  const std::string& text = self.text();
  if (prefix) {
    return Value::string(text.starts_with(affix) ? text.substr(affix.size()) : text);
  }
  return Value::string(text.ends_with(affix) ? text.substr(0, text.size() - affix.size()) : text);
}

using Table = std::unordered_map<std::string, Method>;

void add_changes(Table& table) {
  const auto plain = [&](const char* name, std::string (*change)(std::string_view)) {
    table[name] = [name, change](
                      Interpreter& interpreter, const Value& self, Arguments& arguments) {
      const Bound args(name, arguments, {});
      return interpreter.text(change(self.text()));
    };
  };
  plain("upper", upper);
  plain("lower", lower);
  plain("casefold", lower);
  plain("title", title_words);
  plain("capitalize", capitalized);
  plain("swapcase", swapped_case);
  const auto question = [&](const char* name, bool (*ask)(std::string_view)) {
    table[name] = [name, ask](Interpreter&, const Value& self, Arguments& arguments) {
      const Bound args(name, arguments, {});
      return Value::boolean(ask(self.text()));
    };
  };
  question("isdigit", is_digits);
  question("isdecimal", is_digits);
  question("isnumeric", is_digits);
  question("isalpha", is_letters);
  question("isalnum", is_letters_or_digits);
  question("isspace", is_blank);
  question("isupper", is_upper);
  question("islower", is_lower);
}

void add_cuts(Table& table) {
  table["split"] = [](Interpreter&, const Value& self, Arguments& a) {
    return split_method(self, a, false);
  };
  table["rsplit"] = [](Interpreter&, const Value& self, Arguments& a) {
    return split_method(self, a, true);
  };
  table["splitlines"] = [](Interpreter&, const Value& self, Arguments& a) {
    const Bound args("splitlines", a, {"keepends"});
    return Value::list(strings(split_lines(self.text(), args.boolean(0, false))));
  };
  table["strip"] = [](Interpreter& i, const Value& self, Arguments& a) {
    return strip_method(i, self, a, true, true);
  };
  table["lstrip"] = [](Interpreter& i, const Value& self, Arguments& a) {
    return strip_method(i, self, a, true, false);
  };
  table["rstrip"] = [](Interpreter& i, const Value& self, Arguments& a) {
    return strip_method(i, self, a, false, true);
  };
  table["removeprefix"] = [](Interpreter&, const Value& self, Arguments& a) {
    return affix_method(self, a, true);
  };
  table["removesuffix"] = [](Interpreter&, const Value& self, Arguments& a) {
    return affix_method(self, a, false);
  };
  table["partition"] = [](Interpreter&, const Value& self, Arguments& a) {
    return partition_method(self, a, false);
  };
  table["rpartition"] = [](Interpreter&, const Value& self, Arguments& a) {
    return partition_method(self, a, true);
  };
}

void add_searches(Table& table) {
  table["startswith"] = [](Interpreter&, const Value& self, Arguments& a) {
    return edge_method(self, a, true);
  };
  table["endswith"] = [](Interpreter&, const Value& self, Arguments& a) {
    return edge_method(self, a, false);
  };
  table["find"] = [](Interpreter&, const Value& self, Arguments& a) {
    return find_method(self, a, false, false);
  };
  table["rfind"] = [](Interpreter&, const Value& self, Arguments& a) {
    return find_method(self, a, true, false);
  };
  table["index"] = [](Interpreter&, const Value& self, Arguments& a) {
    return find_method(self, a, false, true);
  };
  table["rindex"] = [](Interpreter&, const Value& self, Arguments& a) {
    return find_method(self, a, true, true);
  };
  table["count"] = [](Interpreter&, const Value& self, Arguments& a) {
    const Bound args("count", a, {"sub"});
    return Value::integer(count_of(self.text(), string_of(args.need(0), "count")));
  };
}

void add_builders(Table& table) {
  table["replace"] = [](Interpreter& interpreter, const Value& self, Arguments& a) {
    const Bound args("replace", a, {"old", "new", "count"});
    return interpreter.text(replaced(self.text(),
                                     string_of(args.need(0), "replace"),
                                     string_of(args.need(1), "replace"),
                                     args.integer(2, -1),
                                     interpreter));
  };
  table["join"] = [](Interpreter& interpreter, const Value& self, Arguments& a) {
    const Bound args("join", a, {"iterable"});
    std::string out;
    bool first = true;
    for (const Value& part : iterate(args.need(0))) {
      out += (first ? "" : self.text()) + string_of(part, "join");
      interpreter.check_size(out.size());
      first = false;
    }
    return interpreter.text(std::move(out));
  };
  table["format"] = [](Interpreter& interpreter, const Value& self, Arguments& a) {
    return interpreter.text(brace_format(self.text(), interpreter, a));
  };
  table["center"] = [](Interpreter& i, const Value& self, Arguments& a) {
    return pad_method(i, self, a, '^');
  };
  table["ljust"] = [](Interpreter& i, const Value& self, Arguments& a) {
    return pad_method(i, self, a, '<');
  };
  table["rjust"] = [](Interpreter& i, const Value& self, Arguments& a) {
    return pad_method(i, self, a, '>');
  };
  table["zfill"] = [](Interpreter& interpreter, const Value& self, Arguments& a) {
    const Bound args("zfill", a, {"width"});
    const bool sign = self.text().starts_with('-') || self.text().starts_with('+');
    const std::string digits = self.text().substr(sign ? 1 : 0);
    const int64_t width = to_index(args.need(0)) - (sign ? 1 : 0);
    return interpreter.text(self.text().substr(0, sign ? 1 : 0) +
                            pad(digits, width, "0", '>', interpreter));
  };
}

const Table& string_methods() {
  static const Table table = [] {
    Table made;
    add_changes(made);
    add_cuts(made);
    add_searches(made);
    add_builders(made);
    return made;
  }();
  return table;
}

Value pairs_of(const Value& self) {
  std::vector<Value> items;
  for (const Pair& pair : self.dict_data().items) {
    items.push_back(Value::list({pair.key, pair.value}, Type::Tuple));
  }
  return Value::view(std::move(items), "dict_items");
}

const Table& dict_methods() {
  static const Table table = {
      {"items", [](Interpreter&, const Value& self, Arguments&) { return pairs_of(self); }},
      {"keys",
       [](Interpreter&, const Value& self, Arguments&) {
         return Value::view(iterate(self), "dict_keys");
       }},
      {"values",
       [](Interpreter&, const Value& self, Arguments&) {
         std::vector<Value> items;
         for (const Pair& pair : self.dict_data().items) {
           items.push_back(pair.value);
         }
         return Value::view(std::move(items), "dict_values");
       }},
      {"get",
       [](Interpreter&, const Value& self, Arguments& arguments) {
         const Bound args("get", arguments, {"key", "default"});
         const Value* found = self.find(args.need(0));
         return found != nullptr ? *found : args[1] != nullptr ? *args[1] : Value::none();
       }},
      {"copy",
       [](Interpreter&, const Value& self, Arguments&) { return Value::dict(self.dict_data()); }}};
  return table;
}

const Table& list_methods() {
  static const Table table = {{"index",
                               [](Interpreter&, const Value& self, Arguments& arguments) {
                                 const Bound args("index", arguments, {"value"});
                                 for (size_t i = 0; i < self.items().size(); ++i) {
                                   if (equal(self.items()[i], args.need(0))) {
                                     return Value::integer(static_cast<int64_t>(i));
                                   }
                                 }
                                 fail("the value is not in the list");
                               }},
                              {"count",
                               [](Interpreter&, const Value& self, Arguments& arguments) {
                                 const Bound args("count", arguments, {"value"});
                                 int64_t count = 0;
                                 for (const Value& item : self.items()) {
                                   count += equal(item, args.need(0));
                                 }
                                 return Value::integer(count);
                               }},
                              {"copy", [](Interpreter&, const Value& self, Arguments&) {
                                 return Value::list(self.items());
                               }}};
  return table;
}

const Table& loop_methods() {
  static const Table table = {{"cycle", [](Interpreter&, const Value& self, Arguments& arguments) {
                                 if (arguments.positional.empty()) {
                                   fail("loop.cycle needs values");
                                 }
                                 const size_t at =
                                     self.loop_data().index % arguments.positional.size();
                                 return arguments.positional[at];
                               }}};
  return table;
}

const Table* methods_of(const Value& value) {
  switch (value.type()) {
    case Type::String:
      return &string_methods();
    case Type::Dict:
      return &dict_methods();
    case Type::List:
    case Type::Tuple:
      return value.list_data().view == nullptr ? &list_methods() : nullptr;
    case Type::Loop:
      return &loop_methods();
    default:
      return nullptr;
  }
}

bool changes_its_object(const Value& value, std::string_view name) {
  constexpr std::string_view kList[] = {
      "append", "extend", "insert", "pop", "remove", "reverse", "sort", "clear"};
  constexpr std::string_view kDict[] = {"update", "pop", "popitem", "setdefault", "clear"};
  return (value.is(Type::List) &&
          std::find(std::begin(kList), std::end(kList), name) != std::end(kList)) ||
         (value.is(Type::Dict) &&
          std::find(std::begin(kDict), std::end(kDict), name) != std::end(kDict));
}

}  // namespace

bool has_method(const Value& value, std::string_view name) {
  const Table* table = methods_of(value);
  return (table != nullptr && table->contains(std::string(name))) ||
         changes_its_object(value, name);
}

Value call_method(Interpreter& interpreter,
                  const Value& self,
                  const std::string& name,
                  Arguments& arguments) {
  if (changes_its_object(self, name)) {
    fail("a template may not change its values: '" + name + "' of a " + type_name(self));
  }
  spend(1);
  return methods_of(self)->at(name)(interpreter, self, arguments);
}

}  // namespace kamerton::text::jinja
