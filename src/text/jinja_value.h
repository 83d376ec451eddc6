// SPDX-License-Identifier: Apache-2.0
// Values of the template language: what Python's would be.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kamerton/core/json.h"

namespace kamerton::text::jinja {

using Integer =
    __int128;  // Python's integers have no end; this one has 38 digits, passing it is an error

class Value;
class Interpreter;

/// Throws ErrorKind::Data.
[[noreturn]] void fail(const std::string& what);

/// Work that a rendering may still do on this thread; values built of shared parts can be
/// exponentially large, so walking over them is counted too.
class Fuel {
 public:
  explicit Fuel(int64_t steps);
  ~Fuel();
  Fuel(const Fuel&) = delete;
  Fuel& operator=(const Fuel&) = delete;

 private:
  int64_t before_;
};
/// Takes from this thread's fuel; fails when it is used up.
void spend(int64_t steps);

enum class Type {
  Undefined,
  None,
  Bool,
  Int,
  Float,
  String,
  List,
  Tuple,
  Iterator,
  Dict,
  Namespace,
  Function,
  Loop
};

struct ListData {
  std::vector<Value> items;
  const char* view = nullptr;  ///< "dict_keys", ... for what prints under such a name
  int depth = 1;               ///< levels of containers, bounded
  bool holds_namespace = false;
};

struct Pair;
struct DictData {
  std::vector<Pair> items;  ///< in order of insertion
  int depth = 1;
  bool holds_namespace = false;
};

/// Arguments of a call.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

struct FunctionData {
  std::string name;
  std::function<Value(Interpreter&, Arguments&)> call;
  int depth = 1;  ///< with what it holds
  bool holds_namespace = false;
};

struct LoopData;

class Value {
 public:
  Value() = default;  ///< undefined
  static Value undefined(std::string name);
  static Value none();
  static Value boolean(bool value);
  static Value integer(Integer value);
  static Value real(double value);
  static Value string(std::string value);
  static Value markup(std::string value);
  static Value list(std::vector<Value> items, Type type = Type::List);
  static Value view(std::vector<Value> items, const char* name);
  static Value dict(DictData items, Type type = Type::Dict);
  /// `bound`: the values that `call` holds.
  static Value function(std::string name,
                        std::function<Value(Interpreter&, Arguments&)> call,
                        const std::vector<Value>& bound);
  static Value loop(std::shared_ptr<LoopData> loop);
  static Value from_json(const core::Json& json);

  Type type() const { return type_; }
  bool is(Type type) const { return type_ == type; }
  bool is_number() const {
    return type_ == Type::Int || type_ == Type::Float || type_ == Type::Bool;
  }
  bool is_list_like() const {
    return type_ == Type::List || type_ == Type::Tuple || type_ == Type::Iterator;
  }
  bool is_markup() const { return markup_; }

  /// Int and Bool.
  Integer as_int() const { return int_; }
  /// Any number.
  double as_double() const { return type_ == Type::Float ? double_ : static_cast<double>(int_); }
  const std::string& text() const { return *data<const std::string>(); }
  const std::vector<Value>& items() const { return data<ListData>()->items; }
  const ListData& list_data() const { return *data<ListData>(); }
  DictData& dict_data() const { return *data<DictData>(); }
  const FunctionData& function_data() const { return *data<FunctionData>(); }
  LoopData& loop_data() const { return *data<LoopData>(); }
  const void* identity() const { return data_.get(); }
  int depth() const;
  /// Whether a namespace is in it; a namespace never holds such a value, so that values cannot form
  /// cycles.
  bool holds_namespace() const;

  const Value* find(const Value& key) const;  ///< in a Dict or Namespace
  const Value* find(std::string_view key) const;
  bool truthy() const;

 private:
  Type type_ = Type::Undefined;
  bool markup_ = false;
  union {
    Integer int_ = 0;
    double double_;
  };
  /// std::string (String, Undefined's name), ListData, DictData, FunctionData, LoopData: as the
  /// type says.
  std::shared_ptr<void> data_;
  template <class Data>
  Data* data() const {
    return static_cast<Data*>(data_.get());
  }
  friend std::string undefined_name(const Value& value);
};

struct Pair {
  Value key;
  Value value;
};

struct LoopData {
  std::vector<Value> items;
  size_t index = 0;
  int64_t depth = 1;
  int depth_of_items = 1;
  bool holds_namespace = false;
  std::function<Value(Interpreter&, const Value&)> recurse;
};

std::string undefined_name(const Value& value);
/// Python's name of the type, for messages.
const char* type_name(const Value& value);
bool equal(const Value& a, const Value& b);
/// -1, 0, 1; fails where Python has no order.
int compare(const Value& a, const Value& b);
/// `needle in haystack`
bool contains(const Value& haystack, const Value& needle);
/// What a for loop over the value sees.
std::vector<Value> iterate(const Value& value);
/// len(value)
int64_t length(const Value& value);
void set_item(DictData& dict, Value key, Value value);

/// Python's str() and repr().
std::string to_str(const Value& value);
std::string to_repr(const Value& value);
std::string float_repr(double value);
std::string int_text(Integer value);
std::string string_repr(std::string_view value);

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  bool indented = false;
  std::string indent;
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};
/// Python's json.dumps.
std::string to_json(const Value& value, const JsonStyle& style);

}  // namespace kamerton::text::jinja
