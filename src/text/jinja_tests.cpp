// SPDX-License-Identifier: Apache-2.0
// Tests ("x is defined"), and the global functions.
#include <unordered_map>

#include "jinja_interpreter.h"
#include "jinja_strings.h"

namespace kamerton::text::jinja {
namespace {

using Tests = std::unordered_map<std::string_view, TestFunction>;

void no_arguments(Arguments& arguments) {
  const Bound args("the test", arguments, {});
}

template <bool (*Ask)(const Value&)>
bool plain(Interpreter&, const Value& value, Arguments& arguments) {
  no_arguments(arguments);
  return Ask(value);
}

bool is_defined(const Value& v) {
  return !v.is(Type::Undefined);
}
bool is_undefined(const Value& v) {
  return v.is(Type::Undefined);
}
bool is_none(const Value& v) {
  return v.is(Type::None);
}
bool is_boolean(const Value& v) {
  return v.is(Type::Bool);
}
bool is_true(const Value& v) {
  return v.is(Type::Bool) && v.as_int() != 0;
}
bool is_false(const Value& v) {
  return v.is(Type::Bool) && v.as_int() == 0;
}
bool is_int(const Value& v) {
  return v.is(Type::Int);
}
bool is_float(const Value& v) {
  return v.is(Type::Float);
}
bool is_number(const Value& v) {
  return v.is_number();
}
bool is_string(const Value& v) {
  return v.is(Type::String);
}
bool is_mapping(const Value& v) {
  return v.is(Type::Dict);
}
bool is_callable(const Value& v) {
  return v.is(Type::Function);
}
bool is_escaped(const Value& v) {
  return v.is_markup();
}
bool is_iterable(const Value& v) {
  return v.is_list_like() || v.is(Type::String) || v.is(Type::Dict) || v.is(Type::Undefined) ||
         v.is(Type::Loop);
}
bool is_sequence(const Value& v) {
  return v.is(Type::String) || v.is(Type::Dict) || v.is(Type::Undefined) ||
         ((v.is(Type::List) || v.is(Type::Tuple)) && v.list_data().view == nullptr);
}
bool is_lower_text(const Value& v) {
  return is_lower(to_str(v));
}
bool is_upper_text(const Value& v) {
  return is_upper(to_str(v));
}

bool remains(Interpreter& interpreter, const Value& value, Integer divisor, Integer wanted) {
  return equal(operate(interpreter, "%", value, Value::integer(divisor)), Value::integer(wanted));
}

template <bool (*Ask)(const Value&, const Value&)>
bool against(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound args("the test", arguments, {"other"});
  return Ask(value, args.need(0));
}

bool is_equal(const Value& a, const Value& b) {
  return equal(a, b);
}
bool is_unequal(const Value& a, const Value& b) {
  return !equal(a, b);
}
bool is_less(const Value& a, const Value& b) {
  return compare(a, b) < 0;
}
bool is_at_most(const Value& a, const Value& b) {
  return compare(a, b) <= 0;
}
bool is_greater(const Value& a, const Value& b) {
  return compare(a, b) > 0;
}
bool is_at_least(const Value& a, const Value& b) {
  return compare(a, b) >= 0;
}
bool is_in(const Value& a, const Value& b) {
  return contains(b, a);
}
bool is_same(const Value& a, const Value& b) {
  const bool small = a.is(Type::None) || a.is(Type::Bool) || a.is(Type::Int);
  return a.type() == b.type() && (small ? equal(a, b) : a.identity() == b.identity());
}

void add_comparisons(Tests& t) {
  t["eq"] = t["equalto"] = t["=="] = against<is_equal>;
  t["ne"] = t["!="] = against<is_unequal>;
  t["lt"] = t["lessthan"] = t["<"] = against<is_less>;
  t["le"] = t["<="] = against<is_at_most>;
  t["gt"] = t["greaterthan"] = t[">"] = against<is_greater>;
  t["ge"] = t[">="] = against<is_at_least>;
  t["in"] = against<is_in>;
  t["sameas"] = against<is_same>;
  t["divisibleby"] = [](Interpreter& i, const Value& v, Arguments& a) {
    const Bound args("divisibleby", a, {"num"});
    return equal(operate(i, "%", v, args.need(0)), Value::integer(0));
  };
  t["odd"] = [](Interpreter& i, const Value& v, Arguments& a) {
    no_arguments(a);
    return remains(i, v, 2, 1);
  };
  t["even"] = [](Interpreter& i, const Value& v, Arguments& a) {
    no_arguments(a);
    return remains(i, v, 2, 0);
  };
  t["filter"] = [](Interpreter&, const Value& v, Arguments&) {
    return find_filter(to_str(v)) != nullptr;
  };
  t["test"] = [](Interpreter&, const Value& v, Arguments&) {
    return find_test(to_str(v)) != nullptr;
  };
}

const Tests& tests() {
  static const Tests table = [] {
    Tests t{{"defined", plain<is_defined>},
            {"undefined", plain<is_undefined>},
            {"none", plain<is_none>},
            {"boolean", plain<is_boolean>},
            {"true", plain<is_true>},
            {"false", plain<is_false>},
            {"integer", plain<is_int>},
            {"float", plain<is_float>},
            {"number", plain<is_number>},
            {"string", plain<is_string>},
            {"mapping", plain<is_mapping>},
            {"callable", plain<is_callable>},
            {"escaped", plain<is_escaped>},
            {"iterable", plain<is_iterable>},
            {"sequence", plain<is_sequence>},
            {"lower", plain<is_lower_text>},
            {"upper", plain<is_upper_text>}};
    add_comparisons(t);
    return t;
  }();
  return table;
}

Value make_range(Interpreter&, Arguments& arguments) {
  constexpr int64_t kLongest = 100000;  // as in Jinja's sandbox
  if (arguments.positional.empty() || arguments.positional.size() > 3 || !arguments.named.empty()) {
    fail("range takes one to three integers");
  }
  const bool single = arguments.positional.size() == 1;
  const int64_t from = single ? 0 : to_index(arguments.positional[0]);
  const int64_t to = to_index(arguments.positional[single ? 0 : 1]);
  const int64_t step = arguments.positional.size() == 3 ? to_index(arguments.positional[2]) : 1;
  if (step == 0) {
    fail("range's step is zero");
  }
  std::vector<Value> items;
  for (int64_t i = from; step > 0 ? i < to : i > to; i += step) {
    items.push_back(Value::integer(i));
    if (items.size() > static_cast<size_t>(kLongest)) {
      fail("a range is longer than 100000");
    }
  }
  return Value::list(std::move(items));
}

Value make_dict(Arguments& arguments, Type type) {
  DictData items;
  for (const Value& given : arguments.positional) {
    if (given.is(Type::Dict)) {
      items = given.dict_data();
      continue;
    }
    for (const Value& pair : iterate(given)) {
      const std::vector<Value> parts = iterate(pair);
      if (parts.size() != 2) {
        fail("dict needs pairs");
      }
      set_item(items, parts[0], parts[1]);
    }
  }
  for (const auto& [name, value] : arguments.named) {
    set_item(items, Value::string(name), value);
  }
  for (const Pair& pair : items.items) {
    const bool hidden = pair.key.is(Type::String) && pair.key.text().starts_with('_');
    if (type == Type::Namespace && (hidden || pair.value.holds_namespace())) {
      fail("a namespace cannot hold a namespace or a name that begins with '_'");
    }
  }
  return Value::dict(std::move(items), type);
}

Value make_joiner(Interpreter&, Arguments& arguments) {
  const Bound args("joiner", arguments, {"sep"});
  const auto used = std::make_shared<bool>(false);
  return Value::function("joiner",
                         [used, separator = args.string(0, ", ")](Interpreter&, Arguments&) {
                           return Value::string(std::exchange(*used, true) ? separator : "");
                         },
                         {});
}

Value raise_exception(Interpreter&, Arguments& arguments) {
  const Bound args("raise_exception", arguments, {"message"});
  fail("the template refuses this conversation: " + to_str(args.need(0)));
}

}  // namespace

TestFunction find_test(std::string_view name) {
  const auto found = tests().find(name);
  return found == tests().end() ? nullptr : found->second;
}

Value find_global(const std::string& name) {
  using Function = std::function<Value(Interpreter&, Arguments&)>;
  static const std::unordered_map<std::string, Function> table = {
      {"range", make_range},
      {"dict", [](Interpreter&, Arguments& a) { return make_dict(a, Type::Dict); }},
      {"namespace", [](Interpreter&, Arguments& a) { return make_dict(a, Type::Namespace); }},
      {"joiner", make_joiner},
      {"raise_exception", raise_exception},
      {"strftime_now",
       [](Interpreter& interpreter, Arguments& a) {
         const Bound args("strftime_now", a, {"format"});
         return Value::string(interpreter.now(string_of(args.need(0), "strftime_now")));
       }},
      {"cycler",
       [](Interpreter&, Arguments&) -> Value {
         fail("cycler is not supported in chat templates");
       }},
      {"lipsum", [](Interpreter&, Arguments&) -> Value {
         fail("lipsum makes random text; chat templates cannot use it");
       }}};
  const auto found = table.find(name);
  return found == table.end() ? Value() : Value::function(name, found->second, {});
}

}  // namespace kamerton::text::jinja
