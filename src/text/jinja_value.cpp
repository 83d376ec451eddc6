// SPDX-License-Identifier: Apache-2.0
#include "jinja_value.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"

#include "unicode.h"

namespace kamerton::text::jinja {

void fail(const std::string& what) {
  throw core::Error(
      core::ErrorKind::Data,
      {.where = "text.chat_template", .what = what, .got = "", .allowed = "", .hint = ""});
}

namespace {

thread_local int64_t fuel_left = INT64_MAX;
constexpr int kMaxNesting = 200;

/// Notes what a container's child means for the container.
template <class Data>
void note_child(Data& data, const Value& child) {
  data.depth = std::max(data.depth, child.depth() + 1);
  data.holds_namespace = data.holds_namespace || child.holds_namespace();
  if (data.depth > kMaxNesting) {
    fail("the template builds a value nested deeper than 200 levels");
  }
}

}  // namespace

Fuel::Fuel(int64_t steps) : before_(fuel_left) {
  fuel_left = steps;
}
Fuel::~Fuel() {
  fuel_left = before_;
}

void spend(int64_t steps) {
  fuel_left -= steps;
  if (fuel_left < 0) {
    fail("the template does too much work; it passed its limit of steps");
  }
}

int Value::depth() const {
  return is_list_like()            ? list_data().depth
         : type_ == Type::Dict     ? dict_data().depth
         : type_ == Type::Function ? function_data().depth
         : type_ == Type::Loop     ? loop_data().depth_of_items
                                   : 0;
}

bool Value::holds_namespace() const {
  return type_ == Type::Namespace || (is_list_like() && list_data().holds_namespace) ||
         (type_ == Type::Dict && dict_data().holds_namespace) ||
         (type_ == Type::Function && function_data().holds_namespace) ||
         (type_ == Type::Loop && loop_data().holds_namespace);
}

Value Value::undefined(std::string name) {
  Value v;
  v.data_ = std::make_shared<std::string>(std::move(name));
  return v;
}

Value Value::none() {
  Value v;
  v.type_ = Type::None;
  return v;
}

Value Value::boolean(bool value) {
  Value v;
  v.type_ = Type::Bool;
  v.int_ = value ? 1 : 0;
  return v;
}

Value Value::integer(Integer value) {
  Value v;
  v.type_ = Type::Int;
  v.int_ = value;
  return v;
}

Value Value::real(double value) {
  Value v;
  v.type_ = Type::Float;
  v.double_ = value;
  return v;
}

Value Value::string(std::string value) {
  Value v;
  v.type_ = Type::String;
  v.data_ = std::make_shared<std::string>(std::move(value));
  return v;
}

Value Value::markup(std::string value) {
  Value v = string(std::move(value));
  v.markup_ = true;
  return v;
}

Value Value::list(std::vector<Value> items, Type type) {
  Value v;
  v.type_ = type;
  auto data = std::make_shared<ListData>();
  data->items = std::move(items);
  for (const Value& item : data->items) {
    note_child(*data, item);
  }
  spend(static_cast<int64_t>(data->items.size()));
  v.data_ = std::move(data);
  return v;
}

Value Value::view(std::vector<Value> items, const char* name) {
  Value v = list(std::move(items));
  v.data<ListData>()->view = name;
  return v;
}

Value Value::dict(DictData items, Type type) {
  Value v;
  v.type_ = type;
  auto data = std::make_shared<DictData>(std::move(items));
  for (const Pair& pair : data->items) {
    note_child(*data, pair.value);
  }
  spend(static_cast<int64_t>(data->items.size()));
  v.data_ = std::move(data);
  return v;
}

Value Value::function(std::string name,
                      std::function<Value(Interpreter&, Arguments&)> call,
                      const std::vector<Value>& bound) {
  Value v;
  v.type_ = Type::Function;
  auto data = std::make_shared<FunctionData>(FunctionData{std::move(name), std::move(call)});
  for (const Value& value : bound) {
    note_child(*data, value);
  }
  v.data_ = std::move(data);
  return v;
}

Value Value::loop(std::shared_ptr<LoopData> loop) {
  Value v;
  v.type_ = Type::Loop;
  loop->depth_of_items = 1;
  for (const Value& item : loop->items) {
    loop->depth_of_items = std::max(loop->depth_of_items, item.depth() + 1);
    loop->holds_namespace = loop->holds_namespace || item.holds_namespace();
  }
  if (loop->depth_of_items > kMaxNesting) {
    fail("the template nests loops' items too deeply");
  }
  v.data_ = std::move(loop);
  return v;
}

Value Value::from_json(const core::Json& json) {
  switch (json.type()) {
    case core::Json::value_t::boolean:
      return boolean(json.get<bool>());
    case core::Json::value_t::number_integer:
      return integer(json.get<int64_t>());
    case core::Json::value_t::number_unsigned:
      return integer(json.get<uint64_t>());
    case core::Json::value_t::number_float:
      return real(json.get<double>());
    case core::Json::value_t::string:
      return string(json.get<std::string>());
    case core::Json::value_t::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const core::Json& item : json) {
        items.push_back(from_json(item));
      }
      return list(std::move(items));
    }
    case core::Json::value_t::object: {
      DictData dict_items;
      for (const auto& [key, item] : json.items()) {
        dict_items.items.push_back({string(key), from_json(item)});
      }
      return dict(std::move(dict_items));
    }
    default:
      return none();
  }
}

const Value* Value::find(const Value& key) const {
  for (const Pair& pair : dict_data().items) {
    if (equal(pair.key, key)) {
      return &pair.value;
    }
  }
  return nullptr;
}

const Value* Value::find(std::string_view key) const {
  for (const Pair& pair : dict_data().items) {
    if (pair.key.is(Type::String) && pair.key.text() == key) {
      return &pair.value;
    }
  }
  return nullptr;
}

bool Value::truthy() const {
  switch (type_) {
    case Type::Undefined:
    case Type::None:
      return false;
    case Type::Bool:
    case Type::Int:
      return int_ != 0;
    case Type::Float:
      return double_ != 0;
    case Type::String:
      return !text().empty();
    case Type::List:
    case Type::Tuple:
      return !items().empty();
    case Type::Dict:
      return !dict_data().items.empty();
    default:
      return true;  // an iterator is true even when nothing is left
  }
}

std::string undefined_name(const Value& value) {
  return value.data_ ? value.text() : "value";
}

const char* type_name(const Value& value) {
  constexpr const char* kNames[] = {"Undefined",
                                    "NoneType",
                                    "bool",
                                    "int",
                                    "float",
                                    "str",
                                    "list",
                                    "tuple",
                                    "generator",
                                    "dict",
                                    "Namespace",
                                    "function",
                                    "LoopContext"};
  return kNames[static_cast<int>(value.type())];
}

namespace {

bool equal_items(const std::vector<Value>& a, const std::vector<Value>& b) {
  if (a.size() != b.size()) {
    return false;
  }
  for (size_t i = 0; i < a.size(); ++i) {
    if (!equal(a[i], b[i])) {
      return false;
    }
  }
  return true;
}

bool equal_dicts(const Value& a, const Value& b) {
  if (a.dict_data().items.size() != b.dict_data().items.size()) {
    return false;
  }
  for (const Pair& pair : a.dict_data().items) {
    const Value* other = b.find(pair.key);
    if (other == nullptr || !equal(pair.value, *other)) {
      return false;
    }
  }
  return true;
}

}  // namespace

bool equal(const Value& a, const Value& b) {
  spend(1);
  if (a.is_number() && b.is_number()) {
    return a.is(Type::Float) || b.is(Type::Float) ? a.as_double() == b.as_double()
                                                  : a.as_int() == b.as_int();
  }
  if (a.type() != b.type()) {
    return false;
  }
  switch (a.type()) {
    case Type::Undefined:
    case Type::None:
      return true;
    case Type::String:
      return a.text() == b.text();
    case Type::List:
    case Type::Tuple:
      return equal_items(a.items(), b.items());
    case Type::Dict:
      return equal_dicts(a, b);
    default:
      return a.identity() == b.identity();
  }
}

int compare(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (a.is(Type::Float) || b.is(Type::Float)) {
      return a.as_double() < b.as_double() ? -1 : a.as_double() > b.as_double() ? 1 : 0;
    }
    return a.as_int() < b.as_int() ? -1 : a.as_int() > b.as_int() ? 1 : 0;
  }
  if (a.is(Type::String) && b.is(Type::String)) {
    const int order = a.text().compare(b.text());  // UTF-8 sorts as code points do
    return order < 0 ? -1 : order > 0 ? 1 : 0;
  }
  if (a.type() == b.type() && (a.is(Type::List) || a.is(Type::Tuple))) {
    for (size_t i = 0; i < a.items().size() && i < b.items().size(); ++i) {
      if (!equal(a.items()[i], b.items()[i])) {
        return compare(a.items()[i], b.items()[i]);
      }
    }
    return a.items().size() < b.items().size() ? -1 : a.items().size() > b.items().size() ? 1 : 0;
  }
  fail(std::string("'") + type_name(a) + "' and '" + type_name(b) + "' cannot be ordered");
}

bool contains(const Value& haystack, const Value& needle) {
  if (haystack.is(Type::String)) {
    if (!needle.is(Type::String)) {
      fail(std::string("'in <string>' needs a string on its left, not ") + type_name(needle));
    }
    return haystack.text().find(needle.text()) != std::string::npos;
  }
  if (haystack.is(Type::Dict)) {
    return haystack.find(needle) != nullptr;
  }
  for (const Value& item : iterate(haystack)) {
    if (equal(item, needle)) {
      return true;
    }
  }
  return false;
}

std::vector<Value> iterate(const Value& value) {
  std::vector<Value> out;
  spend(1);
  switch (value.type()) {
    case Type::Undefined:
      return out;
    case Type::List:
    case Type::Tuple:
    case Type::Iterator:
      return value.items();
    case Type::Dict:
      for (const Pair& pair : value.dict_data().items) {
        out.push_back(pair.key);
      }
      return out;
    case Type::String:
      for (size_t i = 0; i < value.text().size();) {
        const size_t size = char_length(static_cast<unsigned char>(value.text()[i]));
        out.push_back(Value::string(value.text().substr(i, size)));
        i += size;
      }
      return out;
    case Type::Loop:
      return value.loop_data().items;
    default:
      fail(std::string("'") + type_name(value) + "' cannot be looped over");
  }
}

int64_t length(const Value& value) {
  switch (value.type()) {
    case Type::Undefined:
      return 0;
    case Type::List:
    case Type::Tuple:
      return static_cast<int64_t>(value.items().size());
    case Type::Dict:
      return static_cast<int64_t>(value.dict_data().items.size());
    case Type::Loop:
      return static_cast<int64_t>(value.loop_data().items.size());
    case Type::String: {
      int64_t count = 0;
      for (const char c : value.text()) {
        count += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
      }
      return count;
    }
    default:
      fail(std::string("'") + type_name(value) + "' has no length");
  }
}

void set_item(DictData& dict, Value key, Value value) {
  for (Pair& pair : dict.items) {
    if (equal(pair.key, key)) {
      pair.value = std::move(value);
      return;
    }
  }
  dict.items.push_back({std::move(key), std::move(value)});
}

}  // namespace kamerton::text::jinja
