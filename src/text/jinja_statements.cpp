// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "jinja_interpreter.h"

namespace kamerton::text::jinja {

const Value* Frame::find(std::string_view name) const {
  for (const Frame* frame = this; frame != nullptr; frame = frame->parent.get()) {
    for (const auto& [known, value] : frame->variables) {
      if (known == name) {
        return &value;
      }
    }
  }
  return nullptr;
}

void Frame::set(const std::string& name, Value value) {
  for (auto& [known, old] : variables) {
    if (known == name) {
      old = std::move(value);
      return;
    }
  }
  variables.emplace_back(name, std::move(value));
}

class Interpreter::Depth {
 public:
  explicit Depth(Interpreter& interpreter) : interpreter_(interpreter) {
    if (++interpreter_.depth_ > interpreter_.options_.limits.max_depth) {
      --interpreter_.depth_;
      fail("the template recurses too deeply");
    }
    spend(1);
  }
  ~Depth() { --interpreter_.depth_; }
  Depth(const Depth&) = delete;
  Depth& operator=(const Depth&) = delete;

 private:
  Interpreter& interpreter_;
};

RenderedChat Interpreter::run(std::vector<std::pair<std::string, Value>> variables) {
  const Fuel fuel(options_.limits.max_steps);
  auto context = std::make_shared<Frame>();
  context->variables = std::move(variables);
  auto frame = std::make_shared<Frame>();
  frame->parent = std::move(context);
  execute(template_.body, frame);
  return {std::move(root_), std::move(spans_), turns_begin_, std::move(turn_ends_)};
}

void Interpreter::write(std::string_view text) {
  check_size(out_->size() + text.size());
  spend(static_cast<int64_t>(text.size() / 256));
  out_->append(text);
}

void Interpreter::check_size(size_t bytes) const {
  if (bytes > static_cast<size_t>(options_.limits.max_output_bytes)) {
    fail("the template makes a text longer than its limit");
  }
}

Value Interpreter::text(std::string value) const {
  check_size(value.size());
  spend(static_cast<int64_t>(value.size() / 64));
  return Value::string(std::move(value));
}

std::string Interpreter::captured(const std::vector<NodePtr>& body, const FramePtr& frame) {
  std::string buffer;
  std::string* const outer = std::exchange(out_, &buffer);
  try {
    execute(body, frame);
  } catch (...) {
    out_ = outer;
    throw;
  }
  out_ = outer;
  return buffer;
}

Interpreter::Flow Interpreter::execute(const std::vector<NodePtr>& body, const FramePtr& frame) {
  const Depth depth(*this);
  for (const NodePtr& node : body) {
    if (const Flow flow = execute(*node, frame); flow != Flow::Next) {
      return flow;
    }
  }
  return Flow::Next;
}

Interpreter::Flow Interpreter::execute(const Node& node, const FramePtr& frame) {
  spend(1);
  switch (node.kind) {
    case NodeKind::Data:
      write(node.text);
      return Flow::Next;
    case NodeKind::Output:
      write(to_str(evaluate(*node.children[0], frame)));
      return Flow::Next;
    case NodeKind::If:
      return execute(evaluate(*node.children[0], frame).truthy() ? node.body : node.otherwise,
                     frame);
    case NodeKind::For:
      return run_for(node, frame, iterate(evaluate(*node.children[1], frame)), 1);
    case NodeKind::Set:
      assign(*node.children[0], evaluate(*node.children[1], frame), frame);
      return Flow::Next;
    case NodeKind::SetBlock:
      run_set_block(node, frame);
      return Flow::Next;
    case NodeKind::Macro:
      define_macro(node, frame);
      return Flow::Next;
    case NodeKind::CallBlock:
      run_call_block(node, frame);
      return Flow::Next;
    case NodeKind::FilterBlock: {
      const Value body = text(captured(node.body, std::make_shared<Frame>(Frame{frame})));
      write(to_str(evaluate_filter(*node.children[0], &body, frame)));
      return Flow::Next;
    }
    case NodeKind::With:
      run_with(node, frame);
      return Flow::Next;
    case NodeKind::Generation:
      run_generation(node, frame);
      return Flow::Next;
    case NodeKind::Break:
      return Flow::Break;
    case NodeKind::Continue:
      return Flow::Continue;
    default:
      fail("an expression stands where a statement should");
  }
}

Interpreter::Flow Interpreter::run_for(const Node& node,
                                       const FramePtr& frame,
                                       const std::vector<Value>& items,
                                       int64_t depth) {
  auto loop = std::make_shared<LoopData>();
  loop->depth = depth;
  if (node.children[2] == nullptr) {
    loop->items = items;
  } else {
    for (const Value& candidate : items) {
      auto scope = std::make_shared<Frame>(Frame{frame});
      assign(*node.children[0], candidate, scope);
      if (evaluate(*node.children[2], scope).truthy()) {
        loop->items.push_back(candidate);
      }
    }
  }
  if (loop->items.empty()) {
    return execute(node.otherwise, std::make_shared<Frame>(Frame{frame}));
  }
  if (node.flag) {
    loop->recurse = [&node, frame, depth](Interpreter& interpreter, const Value& children) {
      std::string buffer;
      std::string* const outer = std::exchange(interpreter.out_, &buffer);
      try {
        interpreter.run_for(node, frame, iterate(children), depth + 1);
      } catch (...) {
        interpreter.out_ = outer;
        throw;
      }
      interpreter.out_ = outer;
      return interpreter.text(std::move(buffer));
    };
  }
  const Flow flow = loop_body(node, frame, loop);
  loop->recurse = nullptr;  // it holds the frame that may hold the loop
  return flow;
}

Interpreter::Flow Interpreter::loop_body(const Node& node,
                                         const FramePtr& frame,
                                         const std::shared_ptr<LoopData>& loop) {
  const Value handle = Value::loop(loop);
  const bool turns = &node == template_.turn_loop;
  turns_begin_ = turns ? root_.size() : turns_begin_;
  for (; loop->index < loop->items.size(); ++loop->index) {
    spend(3);
    auto scope = std::make_shared<Frame>(Frame{frame});
    assign(*node.children[0], loop->items[loop->index], scope);
    scope->set("loop", handle);
    if (execute(node.body, scope) == Flow::Break) {
      break;
    }
    if (turns) {
      turn_ends_.push_back(root_.size());
    }
  }
  return Flow::Next;
}

void Interpreter::run_set_block(const Node& node, const FramePtr& frame) {
  Value body = text(captured(node.body, std::make_shared<Frame>(Frame{frame})));
  if (node.children[1] != nullptr) {
    body = evaluate_filter(*node.children[1], &body, frame);
  }
  assign(*node.children[0], body, frame);
}

void Interpreter::run_with(const Node& node, const FramePtr& frame) {
  auto scope = std::make_shared<Frame>(Frame{frame});
  for (size_t i = 0; i < node.names.size(); ++i) {
    scope->set(node.names[i], evaluate(*node.children[i], frame));
  }
  execute(node.body, scope);
}

/// The span starts where the root's output is: inside a macro, that is where the macro's output
/// will go.
void Interpreter::run_generation(const Node& node, const FramePtr& frame) {
  const std::string said = captured(node.body, std::make_shared<Frame>(Frame{frame}));
  spans_.emplace_back(root_.size(), root_.size() + said.size());
  write(said);
}

void Interpreter::define_macro(const Node& node, const FramePtr& frame) {
  frame->set(node.text, make_macro(node, node.text, frame));
}

Value Interpreter::make_macro(const Node& node, const std::string& name, const FramePtr& frame) {
  // The frame holds the macro, so the macro must not hold the frame.
  return Value::function(
      name,
      [&node, name, weak = std::weak_ptr<Frame>(frame)](Interpreter& interpreter,
                                                        Arguments& arguments) {
        const FramePtr outer = weak.lock();
        if (outer == nullptr) {
          fail("the macro '" + name + "' is called outside of the block that defines it");
        }
        return interpreter.run_macro(node, name, outer, arguments);
      },
      {});
}

Value Interpreter::run_macro(const Node& node,
                             const std::string& name,
                             const FramePtr& outer,
                             Arguments& arguments) {
  const Depth depth(*this);
  auto scope = std::make_shared<Frame>(Frame{outer});
  const auto& parameters = node.parameters;
  for (size_t i = 0; i < parameters.size() && i < arguments.positional.size(); ++i) {
    scope->set(parameters[i].name, arguments.positional[i]);
  }
  std::vector<Value> rest;
  for (size_t i = parameters.size(); i < arguments.positional.size(); ++i) {
    rest.push_back(arguments.positional[i]);
  }
  DictData others;
  for (auto& [key, value] : arguments.named) {
    bool known = key == "caller";
    for (size_t i = arguments.positional.size(); i < parameters.size(); ++i) {
      known = known || parameters[i].name == key;
    }
    known ? scope->set(key, value) : set_item(others, Value::string(key), value);
  }
  const auto takes = [&](const char* what) {
    return std::find(node.names.begin(), node.names.end(), what) != node.names.end();
  };
  if ((!rest.empty() && !takes("varargs")) || (!others.items.empty() && !takes("kwargs"))) {
    fail("the macro '" + name + "' is called with arguments that it does not take");
  }
  scope->set("varargs", Value::list(std::move(rest), Type::Tuple));
  scope->set("kwargs", Value::dict(std::move(others)));
  for (const Parameter& parameter : parameters) {
    const auto given = [&](const auto& variable) { return variable.first == parameter.name; };
    if (std::none_of(scope->variables.begin(), scope->variables.end(), given)) {
      scope->set(parameter.name,
                 parameter.otherwise != nullptr ? evaluate(*parameter.otherwise, scope)
                                                : Value::undefined(parameter.name));
    }
  }
  return text(captured(node.body, scope));
}

void Interpreter::run_call_block(const Node& node, const FramePtr& frame) {
  const Node& called = *node.children[0];
  const Value function = evaluate(*called.children[0], frame);
  Arguments arguments = evaluate_arguments(called.arguments, frame);
  arguments.named.emplace_back("caller", make_macro(node, "caller", frame));
  write(to_str(call(function, arguments)));
}

void Interpreter::assign(const Node& target, const Value& value, const FramePtr& frame) {
  if (target.kind == NodeKind::Name) {
    frame->set(target.text, value);
    return;
  }
  if (target.kind == NodeKind::Attribute) {
    const Value space = evaluate(*target.children[0], frame);
    if (!space.is(Type::Namespace)) {
      fail("only a namespace's attributes can be set, not those of '" + target.children[0]->text +
           "'");
    }
    if (target.text.starts_with('_')) {
      fail("a namespace cannot hold a name that begins with '_': " + target.text);
    }
    if (value.holds_namespace()) {
      fail("a namespace cannot hold a namespace");
    }
    set_item(space.dict_data(), Value::string(target.text), value);
    return;
  }
  const std::vector<Value> parts = iterate(value);
  if (parts.size() != target.children.size()) {
    fail(std::to_string(parts.size()) + " values cannot be assigned to " +
         std::to_string(target.children.size()) + " names");
  }
  for (size_t i = 0; i < parts.size(); ++i) {
    assign(*target.children[i], parts[i], frame);
  }
}

Value Interpreter::evaluate(const Node& node, const FramePtr& frame) {
  const Depth depth(*this);
  switch (node.kind) {
    case NodeKind::Const:
      return node.value;
    case NodeKind::Name:
      return lookup(node.text, frame);
    case NodeKind::List:
    case NodeKind::Tuple:
    case NodeKind::Dict:
      return evaluate_container(node, frame);
    case NodeKind::Attribute:
      return attribute(evaluate(*node.children[0], frame), node.text);
    case NodeKind::Item:
      return evaluate_item(node, frame);
    case NodeKind::Call:
      return evaluate_call(node, frame);
    case NodeKind::Filter:
      return evaluate_filter(node, nullptr, frame);
    case NodeKind::Test: {
      const Value value = evaluate(*node.children[0], frame);
      Arguments arguments = evaluate_arguments(node.arguments, frame);
      return Value::boolean(apply_test(node.text, value, arguments));
    }
    case NodeKind::Unary:
      return evaluate_unary(node, frame);
    case NodeKind::Binary:
      return evaluate_binary(node, frame);
    case NodeKind::Compare:
      return evaluate_compare(node, frame);
    case NodeKind::Condition:
      return evaluate_condition(node, frame);
    default:
      fail("a statement stands where an expression should");
  }
}

}  // namespace kamerton::text::jinja
