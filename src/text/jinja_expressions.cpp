// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "jinja_parser.h"

namespace kamerton::text::jinja {

NodePtr Parser::expression(bool with_condition) {
  const Level level(*this);
  return with_condition ? condition() : or_expression();
}

bool Parser::ends_tuple() const {
  return peek().kind == TokenKind::VariableEnd || peek().kind == TokenKind::BlockEnd ||
         peek().kind == TokenKind::End || is_operator(")") || is_name("recursive") || is_name("if");
}

/// One expression, or several with commas between, which make a tuple.
NodePtr Parser::tuple(bool with_condition, bool parenthesized) {
  NodePtr result = node(NodeKind::Tuple);
  bool comma = false;
  while (!ends_tuple()) {
    result->children.push_back(expression(with_condition));
    comma = take_operator(",");
    if (!comma) {
      break;
    }
  }
  if (result->children.size() == 1 && !comma) {
    return std::move(result->children[0]);
  }
  if (result->children.empty() && !parenthesized) {
    bad("expected an expression before '" + peek().text.substr(0, 40) + "'");
  }
  return result;
}

/// What is assigned to: a name, several, or an attribute of a namespace.
NodePtr Parser::target() {
  if (peek().kind == TokenKind::Name && is_operator(".", 1)) {
    NodePtr result = node(NodeKind::Attribute);
    NodePtr name = node(NodeKind::Name);
    name->text = expect_identifier();
    ++at_;
    result->text = expect_identifier();
    result->children.push_back(std::move(name));
    return result;
  }
  const bool enclosed = take_operator("(");
  NodePtr result = node(NodeKind::Tuple);
  bool comma = false;
  do {
    if (comma && peek().kind != TokenKind::Name && !is_operator("(")) {
      break;
    }
    if (is_operator("(")) {
      const Level level(*this);
      result->children.push_back(target());
    } else {
      NodePtr name = node(NodeKind::Name);
      name->text = expect_identifier();
      constexpr std::string_view kReserved[] = {"true", "false", "none", "True", "False", "None"};
      if (std::find(std::begin(kReserved), std::end(kReserved), name->text) !=
          std::end(kReserved)) {
        bad("'" + name->text + "' cannot be assigned to");
      }
      result->children.push_back(std::move(name));
    }
    comma = take_operator(",");
  } while (comma);
  if (enclosed) {
    expect_operator(")");
  }
  return result->children.size() == 1 && !comma ? std::move(result->children[0])
                                                : std::move(result);
}

NodePtr Parser::condition() {
  NodePtr first = or_expression();
  int links = 0;
  while (take_name("if")) {
    count_link(links);
    NodePtr result = node(NodeKind::Condition);
    result->children.push_back(std::move(first));
    result->children.push_back(or_expression());
    NodePtr otherwise;
    if (take_name("else")) {
      const Level level(*this);
      otherwise = condition();
    }
    result->children.push_back(std::move(otherwise));
    first = std::move(result);
  }
  return first;
}

NodePtr Parser::or_expression() {
  NodePtr left = and_expression();
  int links = 0;
  while (is_name("or")) {
    count_link(links);
    NodePtr result = node(NodeKind::Binary);
    result->text = "or";
    ++at_;
    result->children.push_back(std::move(left));
    result->children.push_back(and_expression());
    left = std::move(result);
  }
  return left;
}

NodePtr Parser::and_expression() {
  NodePtr left = not_expression();
  int links = 0;
  while (is_name("and")) {
    count_link(links);
    NodePtr result = node(NodeKind::Binary);
    result->text = "and";
    ++at_;
    result->children.push_back(std::move(left));
    result->children.push_back(not_expression());
    left = std::move(result);
  }
  return left;
}

NodePtr Parser::not_expression() {
  if (!is_name("not")) {
    return comparison();
  }
  const Level level(*this);
  NodePtr result = node(NodeKind::Unary);
  result->text = "not";
  ++at_;
  result->children.push_back(not_expression());
  return result;
}

NodePtr Parser::comparison() {
  NodePtr first = binary(0);
  NodePtr result = node(NodeKind::Compare);
  int links = 0;
  for (;;) {
    std::string op;
    for (const std::string_view candidate : {"==", "!=", "<", "<=", ">", ">="}) {
      op = is_operator(candidate) ? candidate : op;
    }
    if (!op.empty()) {
      ++at_;
    } else if (take_name("in")) {
      op = "in";
    } else if (is_name("not") && is_name("in", 1)) {
      at_ += 2;
      op = "not in";
    } else {
      break;
    }
    count_link(links);
    result->operands.push_back(op);
    result->children.push_back(binary(0));
  }
  if (result->operands.empty()) {
    return first;
  }
  result->children.insert(result->children.begin(), std::move(first));
  return result;
}

/// Levels: + -; ~; * / // %; **.
NodePtr Parser::binary(int level) {
  static const std::vector<std::string_view> kOperators[] = {
      {"+", "-"}, {"~"}, {"*", "/", "//", "%"}, {"**"}};
  if (level == 4) {
    return unary(true);
  }
  NodePtr left = binary(level + 1);
  int links = 0;
  for (;;) {
    const auto& operators = kOperators[level];
    const auto found = std::find_if(
        operators.begin(), operators.end(), [&](std::string_view op) { return is_operator(op); });
    if (found == operators.end()) {
      return left;
    }
    count_link(links);
    NodePtr result = node(NodeKind::Binary);
    result->text = *found;
    ++at_;
    result->children.push_back(std::move(left));
    result->children.push_back(binary(level + 1));
    left = std::move(result);
  }
}

NodePtr Parser::unary(bool with_filter) {
  const Level level(*this);
  NodePtr result;
  if (is_operator("-") || is_operator("+")) {
    result = node(NodeKind::Unary);
    result->text = peek().text;
    ++at_;
    result->children.push_back(unary(false));
  } else {
    result = primary();
  }
  result = postfix(std::move(result));
  return with_filter ? filters(std::move(result)) : std::move(result);
}

NodePtr Parser::primary() {
  const Token token = peek();
  NodePtr result = node(NodeKind::Const);
  if (token.kind == TokenKind::Number) {
    result->value = token.number;
    ++at_;
  } else if (token.kind == TokenKind::String) {
    std::string text;
    while (peek().kind == TokenKind::String) {
      text += peek().text;
      ++at_;
    }
    result->value = Value::string(std::move(text));
  } else if (token.kind == TokenKind::Name) {
    ++at_;
    if (token.text == "true" || token.text == "True" || token.text == "false" ||
        token.text == "False") {
      result->value = Value::boolean(token.text[0] == 't' || token.text[0] == 'T');
    } else if (token.text == "none" || token.text == "None") {
      result->value = Value::none();
    } else {
      result->kind = NodeKind::Name;
      result->text = token.text;
      varargs_ += token.text == "varargs" ? 1 : 0;
      kwargs_ += token.text == "kwargs" ? 1 : 0;
    }
  } else if (take_operator("(")) {
    const Level level(*this);
    result = tuple(true, true);
    expect_operator(")");
  } else if (take_operator("[")) {
    return list_literal();
  } else if (take_operator("{")) {
    return dict_literal();
  } else {
    bad("expected an expression before '" + token.text.substr(0, 40) + "'");
  }
  return result;
}

NodePtr Parser::list_literal() {
  NodePtr result = node(NodeKind::List);
  while (!is_operator("]")) {
    if (!result->children.empty()) {
      expect_operator(",");
    }
    if (is_operator("]")) {
      break;
    }
    result->children.push_back(expression());
  }
  expect_operator("]");
  return result;
}

NodePtr Parser::dict_literal() {
  NodePtr result = node(NodeKind::Dict);
  while (!is_operator("}")) {
    if (!result->children.empty()) {
      expect_operator(",");
    }
    if (is_operator("}")) {
      break;
    }
    result->children.push_back(expression());
    expect_operator(":");
    result->children.push_back(expression());
  }
  expect_operator("}");
  return result;
}

NodePtr Parser::postfix(NodePtr inner) {
  int links = 0;
  for (;;) {
    if (is_operator(".") || is_operator("[")) {
      inner = subscript(std::move(inner));
    } else if (is_operator("(")) {
      NodePtr call = node(NodeKind::Call);
      call->children.push_back(std::move(inner));
      call->arguments = arguments();
      inner = std::move(call);
    } else {
      return inner;
    }
    count_link(links);
  }
}

NodePtr Parser::filters(NodePtr inner) {
  int links = 0;
  for (;;) {
    if (is_operator("|")) {
      inner = filter(std::move(inner));
    } else if (is_name("is")) {
      inner = test(std::move(inner));
    } else if (is_operator("(")) {
      NodePtr call = node(NodeKind::Call);
      call->children.push_back(std::move(inner));
      call->arguments = arguments();
      inner = std::move(call);
    } else {
      return inner;
    }
    count_link(links);
  }
}

NodePtr Parser::subscript(NodePtr inner) {
  if (take_operator(".")) {
    if (peek().kind == TokenKind::Number) {
      NodePtr result = node(NodeKind::Item);
      NodePtr index = node(NodeKind::Const);
      index->value = peek().number;
      ++at_;
      result->children.push_back(std::move(inner));
      result->children.push_back(std::move(index));
      return result;
    }
    NodePtr result = node(NodeKind::Attribute);
    result->text = expect_identifier();
    result->children.push_back(std::move(inner));
    return result;
  }
  expect_operator("[");
  NodePtr result = node(NodeKind::Item);
  result->children.push_back(std::move(inner));
  NodePtr argument = subscript_argument();
  if (is_operator(",")) {
    NodePtr several = node(NodeKind::Tuple);
    several->children.push_back(std::move(argument));
    while (take_operator(",")) {
      several->children.push_back(subscript_argument());
    }
    argument = std::move(several);
  }
  expect_operator("]");
  result->children.push_back(std::move(argument));
  return result;
}

NodePtr Parser::subscript_argument() {
  const auto ends = [&] { return is_operator(":") || is_operator("]") || is_operator(","); };
  NodePtr first;
  if (!is_operator(":")) {
    first = expression();
    if (!is_operator(":")) {
      return first;
    }
  }
  NodePtr result = node(NodeKind::Slice);
  result->children.push_back(std::move(first));
  expect_operator(":");
  result->children.push_back(ends() ? nullptr : expression());
  NodePtr step;
  if (take_operator(":") && !ends()) {
    step = expression();
  }
  result->children.push_back(std::move(step));
  return result;
}

CallArguments Parser::arguments() {
  const Level level(*this);
  CallArguments result;
  expect_operator("(");
  bool first = true;
  while (!is_operator(")")) {
    if (!first) {
      expect_operator(",");
      if (is_operator(")")) {
        break;
      }
    }
    first = false;
    if (take_operator("**")) {
      result.dict = expression();
    } else if (take_operator("*")) {
      result.list = expression();
    } else if (peek().kind == TokenKind::Name && is_operator("=", 1)) {
      std::string name = expect_identifier();
      ++at_;
      result.named.emplace_back(std::move(name), expression());
    } else {
      if (!result.named.empty() || result.dict != nullptr) {
        bad("an argument without a name follows one with a name");
      }
      result.positional.push_back(expression());
    }
  }
  expect_operator(")");
  return result;
}

/// At the '|' (or, in a filter block, at the word before the filter's name).
NodePtr Parser::filter(NodePtr inner) {
  ++at_;
  NodePtr result = node(NodeKind::Filter);
  result->text = expect_identifier();
  while (take_operator(".")) {
    result->text += "." + expect_identifier();
  }
  result->children.push_back(std::move(inner));
  if (is_operator("(")) {
    result->arguments = arguments();
  }
  return result;
}

NodePtr Parser::test(NodePtr inner) {
  expect_name("is");
  const bool negated = take_name("not");
  NodePtr result = node(NodeKind::Test);
  result->text = expect_identifier();
  result->children.push_back(std::move(inner));
  const Token& next = peek();
  const bool starts_value = next.kind == TokenKind::Name || next.kind == TokenKind::String ||
                            next.kind == TokenKind::Number || is_operator("[") || is_operator("{");
  if (is_operator("(")) {
    result->arguments = arguments();
  } else if (starts_value && !is_name("else") && !is_name("or") && !is_name("and") &&
             !is_name("is") && !is_name("if") && !is_name("not") && !is_name("in")) {
    result->arguments.positional.push_back(postfix(primary()));
  }
  if (!negated) {
    return result;
  }
  NodePtr inverse = node(NodeKind::Unary);
  inverse->text = "not";
  inverse->children.push_back(std::move(result));
  return inverse;
}

}  // namespace kamerton::text::jinja
