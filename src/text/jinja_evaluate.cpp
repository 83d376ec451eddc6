// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "jinja_interpreter.h"

namespace kamerton::text::jinja {

Value Interpreter::lookup(const std::string& name, const FramePtr& frame) {
  if (const Value* found = frame->find(name)) {
    return *found;
  }
  const Value global = find_global(name);
  return global.is(Type::Undefined) ? Value::undefined(name) : global;
}

Value Interpreter::evaluate_container(const Node& node, const FramePtr& frame) {
  std::vector<Value> values;
  values.reserve(node.children.size());
  for (const NodePtr& child : node.children) {
    values.push_back(evaluate(*child, frame));
  }
  if (node.kind != NodeKind::Dict) {
    return Value::list(std::move(values), node.kind == NodeKind::List ? Type::List : Type::Tuple);
  }
  DictData dict;
  for (size_t i = 0; i + 1 < values.size(); i += 2) {
    if (values[i].is(Type::List) || values[i].is(Type::Dict)) {
      fail("a list or a dict cannot be a key");
    }
    set_item(dict, values[i], values[i + 1]);
  }
  return Value::dict(std::move(dict));
}

Arguments Interpreter::evaluate_arguments(const CallArguments& given, const FramePtr& frame) {
  Arguments out;
  for (const NodePtr& argument : given.positional) {
    out.positional.push_back(evaluate(*argument, frame));
  }
  for (const auto& [name, argument] : given.named) {
    out.named.emplace_back(name, evaluate(*argument, frame));
  }
  if (given.list != nullptr) {
    for (Value& value : iterate(evaluate(*given.list, frame))) {
      out.positional.push_back(std::move(value));
    }
  }
  if (given.dict != nullptr) {
    const Value dict = evaluate(*given.dict, frame);
    if (!dict.is(Type::Dict)) {
      fail("'**' needs a dict");
    }
    for (const Pair& pair : dict.dict_data().items) {
      out.named.emplace_back(string_of(pair.key, "a call"), pair.value);
    }
  }
  return out;
}

Value Interpreter::evaluate_call(const Node& node, const FramePtr& frame) {
  const Node& callee = *node.children[0];
  if (callee.kind == NodeKind::Attribute) {
    const Value self = evaluate(*callee.children[0], frame);
    if (has_method(self, callee.text)) {
      Arguments arguments = evaluate_arguments(node.arguments, frame);
      return call_method(*this, self, callee.text, arguments);
    }
    const Value function = attribute(self, callee.text);
    Arguments arguments = evaluate_arguments(node.arguments, frame);
    return call(function, arguments);
  }
  const Value function = evaluate(callee, frame);
  Arguments arguments = evaluate_arguments(node.arguments, frame);
  return call(function, arguments);
}

Value Interpreter::call(const Value& function, Arguments& arguments) {
  if (function.is(Type::Function)) {
    return function.function_data().call(*this, arguments);
  }
  if (function.is(Type::Loop) && function.loop_data().recurse) {
    if (arguments.positional.size() != 1 || !arguments.named.empty()) {
      fail("loop() takes one argument");
    }
    const auto recurse = function.loop_data().recurse;
    return recurse(*this, arguments.positional[0]);
  }
  if (function.is(Type::Undefined)) {
    fail("'" + undefined_name(function) + "' is undefined");
  }
  fail(std::string("a value of type ") + type_name(function) + " cannot be called");
}

Value Interpreter::apply_filter(const std::string& name, const Value& value, Arguments& arguments) {
  const FilterFunction filter = find_filter(name);
  if (filter == nullptr) {
    fail("there is no filter named '" + name + "'");
  }
  spend(1);
  return filter(*this, value, arguments);
}

bool Interpreter::apply_test(const std::string& name, const Value& value, Arguments& arguments) {
  const TestFunction test = find_test(name);
  if (test == nullptr) {
    fail("there is no test named '" + name + "'");
  }
  spend(1);
  return test(*this, value, arguments);
}

/// `inner` is what a filter block or set block gives to the innermost filter.
Value Interpreter::evaluate_filter(const Node& node, const Value* inner, const FramePtr& frame) {
  if (node.kind != NodeKind::Filter) {
    return evaluate(node, frame);
  }
  Value value;
  if (node.children[0] == nullptr) {
    if (inner == nullptr) {
      fail("a filter has nothing to work on");
    }
    value = *inner;
  } else {
    value = inner != nullptr ? evaluate_filter(*node.children[0], inner, frame)
                             : evaluate(*node.children[0], frame);
  }
  Arguments arguments = evaluate_arguments(node.arguments, frame);
  return apply_filter(node.text, value, arguments);
}

Value Interpreter::evaluate_unary(const Node& node, const FramePtr& frame) {
  const Value value = evaluate(*node.children[0], frame);
  if (node.text == "not") {
    return Value::boolean(!value.truthy());
  }
  if (!value.is_number()) {
    fail("'" + node.text + "' needs a number, not " + type_name(value));
  }
  if (node.text == "-") {
    return negated(value);
  }
  return value.is(Type::Bool) ? Value::integer(value.as_int()) : value;
}

Value Interpreter::evaluate_binary(const Node& node, const FramePtr& frame) {
  Value left = evaluate(*node.children[0], frame);
  if (node.text == "and") {
    return left.truthy() ? evaluate(*node.children[1], frame) : left;
  }
  if (node.text == "or") {
    return left.truthy() ? left : evaluate(*node.children[1], frame);
  }
  return operate(*this, node.text, left, evaluate(*node.children[1], frame));
}

namespace {

bool holds(const std::string& op, const Value& a, const Value& b) {
  if (op == "==" || op == "!=") {
    return equal(a, b) == (op == "==");
  }
  if (op == "in" || op == "not in") {
    return contains(b, a) == (op == "in");
  }
  const int order = compare(a, b);
  return op == "<" ? order < 0 : op == "<=" ? order <= 0 : op == ">" ? order > 0 : order >= 0;
}

}  // namespace

Value Interpreter::evaluate_compare(const Node& node, const FramePtr& frame) {
  Value left = evaluate(*node.children[0], frame);
  for (size_t i = 0; i < node.operands.size(); ++i) {
    Value right = evaluate(*node.children[i + 1], frame);
    if (!holds(node.operands[i], left, right)) {
      return Value::boolean(false);
    }
    left = std::move(right);
  }
  return Value::boolean(true);
}

Value Interpreter::evaluate_condition(const Node& node, const FramePtr& frame) {
  if (evaluate(*node.children[1], frame).truthy()) {
    return evaluate(*node.children[0], frame);
  }
  return node.children[2] != nullptr ? evaluate(*node.children[2], frame)
                                     : Value::undefined("the inline if-expression without else");
}

Value Interpreter::evaluate_slice(const Node& slice, const Value& value, const FramePtr& frame) {
  const auto bound = [&](size_t i) {
    return slice.children[i] == nullptr ? Value::none() : evaluate(*slice.children[i], frame);
  };
  const Value from = bound(0);
  const Value to = bound(1);
  return sliced(*this, value, from, to, bound(2));
}

Value Interpreter::evaluate_item(const Node& node, const FramePtr& frame) {
  const Value value = evaluate(*node.children[0], frame);
  if (node.children[1]->kind == NodeKind::Slice) {
    return evaluate_slice(*node.children[1], value, frame);
  }
  return item(value, evaluate(*node.children[1], frame));
}

namespace {

Value loop_attribute(const LoopData& loop, const std::string& name) {
  const auto index = static_cast<int64_t>(loop.index);
  const auto count = static_cast<int64_t>(loop.items.size());
  if (name == "index" || name == "index0") {
    return Value::integer(index + (name == "index" ? 1 : 0));
  }
  if (name == "revindex" || name == "revindex0") {
    return Value::integer(count - index - (name == "revindex0" ? 1 : 0));
  }
  if (name == "first") {
    return Value::boolean(index == 0);
  }
  if (name == "last") {
    return Value::boolean(index + 1 == count);
  }
  if (name == "length") {
    return Value::integer(count);
  }
  if (name == "depth" || name == "depth0") {
    return Value::integer(loop.depth - (name == "depth0" ? 1 : 0));
  }
  if (name == "previtem" && index > 0) {
    return loop.items[static_cast<size_t>(index - 1)];
  }
  if (name == "nextitem" && index + 1 < count) {
    return loop.items[static_cast<size_t>(index + 1)];
  }
  return Value::undefined("loop." + name);
}

}  // namespace

Value Interpreter::attribute(const Value& value, const std::string& name) {
  if (value.is(Type::Undefined)) {
    fail("'" + undefined_name(value) + "' is undefined, so it has no '" + name + "'");
  }
  if (has_method(value, name)) {
    return Value::function(name,
                           [value, name](Interpreter& interpreter, Arguments& arguments) {
                             return call_method(interpreter, value, name, arguments);
                           },
                           {value});
  }
  if (value.is(Type::Loop)) {
    return loop_attribute(value.loop_data(), name);
  }
  if (value.is(Type::Dict) || value.is(Type::Namespace)) {
    spend(static_cast<int64_t>(value.dict_data().items.size() / 16));
    if (const Value* found = value.find(name)) {
      return *found;
    }
  }
  return Value::undefined(name);
}

Value Interpreter::item(const Value& value, const Value& key) {
  if (value.is(Type::Undefined)) {
    fail("'" + undefined_name(value) + "' is undefined, so it has no items");
  }
  if (value.is(Type::Dict)) {
    if (const Value* found = value.find(key)) {
      return *found;
    }
  } else if ((value.is(Type::List) || value.is(Type::Tuple) || value.is(Type::String)) &&
             (key.is(Type::Int) || key.is(Type::Bool))) {
    const int64_t count = length(value);
    const Integer at = key.as_int() < 0 ? key.as_int() + count : key.as_int();
    if (at < 0 || at >= count) {
      return Value::undefined("item " + int_text(key.as_int()));
    }
    const auto place = static_cast<size_t>(at);
    if (!value.is(Type::String)) {
      return value.list_data().view != nullptr ? Value::undefined("item") : value.items()[place];
    }
    spend(count / 64);
    return static_cast<size_t>(count) == value.text().size()
               ? Value::string(value.text().substr(place, 1))
               : iterate(value)[place];
  }
  if (key.is(Type::String)) {
    return attribute(value, key.text());
  }
  return Value::undefined("item " + to_repr(key).substr(0, 80));
}

}  // namespace kamerton::text::jinja
