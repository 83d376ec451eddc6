// SPDX-License-Identifier: Apache-2.0
// Runs a parsed template. Nothing it can reach writes files, runs code or outlives its limits.
#pragma once

#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kamerton/text/chat_template.h"

#include "jinja_ast.h"

namespace kamerton::text::jinja {

/// Variables of one scope.
struct Frame {
  std::shared_ptr<Frame> parent;
  std::vector<std::pair<std::string, Value>> variables = {};

  const Value* find(std::string_view name) const;
  void set(const std::string& name, Value value);
};
using FramePtr = std::shared_ptr<Frame>;

class Interpreter {
 public:
  Interpreter(const Template& parsed, const RenderOptions& options)
      : template_(parsed), options_(options) {}
  RenderedChat run(std::vector<std::pair<std::string, Value>> variables);

  // For built-in functions.
  Value call(const Value& function, Arguments& arguments);
  Value apply_filter(const std::string& name, const Value& value, Arguments& arguments);
  bool apply_test(const std::string& name, const Value& value, Arguments& arguments);
  Value attribute(const Value& value, const std::string& name);
  Value item(const Value& value, const Value& key);
  /// A string value, within the limits.
  Value text(std::string value) const;
  void check_size(size_t bytes) const;
  std::string now(const std::string& format) const;

 private:
  enum class Flow { Next, Break, Continue };
  class Depth;

  // Statements (jinja_statements.cpp)
  Flow execute(const std::vector<NodePtr>& body, const FramePtr& frame);
  Flow execute(const Node& node, const FramePtr& frame);
  Flow run_for(const Node& node,
               const FramePtr& frame,
               const std::vector<Value>& items,
               int64_t depth);
  Flow loop_body(const Node& node, const FramePtr& frame, const std::shared_ptr<LoopData>& loop);
  void run_set_block(const Node& node, const FramePtr& frame);
  void run_call_block(const Node& node, const FramePtr& frame);
  void run_with(const Node& node, const FramePtr& frame);
  void run_generation(const Node& node, const FramePtr& frame);
  void define_macro(const Node& node, const FramePtr& frame);
  Value make_macro(const Node& node, const std::string& name, const FramePtr& frame);
  Value run_macro(const Node& node,
                  const std::string& name,
                  const FramePtr& outer,
                  Arguments& arguments);
  void assign(const Node& target, const Value& value, const FramePtr& frame);
  std::string captured(const std::vector<NodePtr>& body, const FramePtr& frame);
  void write(std::string_view text);

  // Expressions (jinja_evaluate.cpp)
  Value evaluate(const Node& node, const FramePtr& frame);
  Value evaluate_container(const Node& node, const FramePtr& frame);
  Value evaluate_call(const Node& node, const FramePtr& frame);
  Value evaluate_filter(const Node& node, const Value* value, const FramePtr& frame);
  Value evaluate_binary(const Node& node, const FramePtr& frame);
  Value evaluate_compare(const Node& node, const FramePtr& frame);
  Value evaluate_item(const Node& node, const FramePtr& frame);
  Value evaluate_slice(const Node& slice, const Value& value, const FramePtr& frame);
  Value evaluate_unary(const Node& node, const FramePtr& frame);
  Value evaluate_condition(const Node& node, const FramePtr& frame);
  Value lookup(const std::string& name, const FramePtr& frame);
  Arguments evaluate_arguments(const CallArguments& given, const FramePtr& frame);

  const Template& template_;
  const RenderOptions& options_;
  std::string root_;
  std::string* out_ = &root_;
  std::vector<std::pair<size_t, size_t>> spans_;
  size_t turns_begin_ = 0;
  std::vector<size_t> turn_ends_;
  int depth_ = 0;
};

/// a OP b for + - * / // % ** ~ (jinja_operators.cpp).
Value operate(const Interpreter& interpreter,
              const std::string& op,
              const Value& a,
              const Value& b);
Value negated(const Value& value);
Value sliced(const Interpreter& interpreter,
             const Value& value,
             const Value& from,
             const Value& to,
             const Value& step);

using FilterFunction = Value (*)(Interpreter&, const Value&, Arguments&);
FilterFunction find_filter(std::string_view name);
using TestFunction = bool (*)(Interpreter&, const Value&, Arguments&);
TestFunction find_test(std::string_view name);
/// Global functions: range, namespace, dict, ...; undefined where there is none of that name.
Value find_global(const std::string& name);

/// Whether Python's type of `value` has a method of that name. Methods that change the value are
/// refused.
bool has_method(const Value& value, std::string_view name);
Value call_method(Interpreter& interpreter,
                  const Value& self,
                  const std::string& name,
                  Arguments& arguments);

/// Python's "%" on strings, str.format, and the escape filter.
std::string percent_format(const std::string& format, const Value& values);
std::string brace_format(const std::string& format,
                         Interpreter& interpreter,
                         const Arguments& arguments);
std::string escaped(std::string_view text);

/// Arguments by name and place; throws on surplus ones.
class Bound {
 public:
  Bound(const char* function, Arguments& arguments, std::initializer_list<const char*> names);
  /// Null where it was not given.
  const Value* operator[](size_t i) const { return values_[i] ? &*values_[i] : nullptr; }
  const Value& need(size_t i) const;
  std::string string(size_t i, const std::string& otherwise) const;
  int64_t integer(size_t i, int64_t otherwise) const;
  bool boolean(size_t i, bool otherwise) const;

 private:
  const char* function_;
  std::vector<std::optional<Value>> values_;
};

int64_t to_index(const Value& value);
/// The text of a string argument; fails for other types.
const std::string& string_of(const Value& value, const char* function);

}  // namespace kamerton::text::jinja
