// SPDX-License-Identifier: Apache-2.0
// The parsed template.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "jinja_value.h"

namespace kamerton::text::jinja {

struct Node;
using NodePtr = std::unique_ptr<Node>;

/// Comments say what `text`, `children` and the other members hold for each kind.
enum class NodeKind {
  // Expressions
  Const,      ///< value
  Name,       ///< text
  List,       ///< children
  Tuple,      ///< children
  Dict,       ///< children: key, value, key, value, ...
  Attribute,  ///< children[0] . text
  Item,       ///< children[0] [children[1]]
  Slice,      ///< children: from, to, step, each may be null
  Call,       ///< children[0] (arguments)
  Filter,     ///< children[0] | text(arguments); children[0] is null in a filter block
  Test,       ///< children[0] is text(arguments)
  Unary,      ///< text: not - +
  Binary,     ///< text: + - * / // % ** ~ and or
  Compare,    ///< children[0], then operands[i] children[i + 1]
  Condition,  ///< children: then, condition, else or null
  // Statements
  Data,         ///< text
  Output,       ///< children[0]
  If,           ///< children[0]: condition, body, otherwise
  For,          ///< children: target, what, condition or null; body; otherwise; flag: recursive
  Set,          ///< children: target, value
  SetBlock,     ///< children: target, filter or null; body
  Macro,        ///< text, parameters, body
  CallBlock,    ///< children[0]: the call; parameters, body
  FilterBlock,  ///< children[0]: the filter; body
  With,         ///< names, children: values; body
  Generation,   ///< body
  Break,
  Continue,
};

struct CallArguments {
  std::vector<NodePtr> positional;
  std::vector<std::pair<std::string, NodePtr>> named;
  NodePtr list, dict;  ///< *list, **dict
};

struct Parameter {
  std::string name;
  NodePtr otherwise;  ///< default value, may be null
};

struct Node {
  NodeKind kind;
  int line = 0;
  std::string text = {};
  Value value = {};
  std::vector<NodePtr> children = {};
  std::vector<std::string> operands = {};
  CallArguments arguments = {};
  std::vector<Parameter> parameters = {};
  std::vector<std::string> names = {};
  std::vector<NodePtr> body = {};
  std::vector<NodePtr> otherwise = {};
  bool flag = false;
};

struct Template {
  std::vector<NodePtr> body;
  bool has_generation = false;
  const Node* turn_loop = nullptr;  ///< the loop over the messages, where growing_loop proves one
};

/// Throws ErrorKind::Data with the line on bad syntax and on statements that chat templates have no
/// use for (include, import, extends, block).
Template parse(std::string_view source);

}  // namespace kamerton::text::jinja
