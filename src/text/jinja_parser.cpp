// SPDX-License-Identifier: Apache-2.0
#include "jinja_parser.h"

#include <algorithm>
#include <utility>

namespace kamerton::text::jinja {

bool Parser::is_operator(std::string_view text, size_t ahead) const {
  return peek(ahead).kind == TokenKind::Operator && peek(ahead).text == text;
}

bool Parser::is_name(std::string_view text, size_t ahead) const {
  return peek(ahead).kind == TokenKind::Name && peek(ahead).text == text;
}

bool Parser::take_operator(std::string_view text) {
  const bool found = is_operator(text);
  at_ += found ? 1 : 0;
  return found;
}

bool Parser::take_name(std::string_view text) {
  const bool found = is_name(text);
  at_ += found ? 1 : 0;
  return found;
}

void Parser::bad(const std::string& what) const {
  fail("the template's line " + std::to_string(peek().line) + ": " + what);
}

void Parser::expect_operator(std::string_view text) {
  if (!take_operator(text)) {
    bad("expected '" + std::string(text) + "' before '" + peek().text.substr(0, 40) + "'");
  }
}

void Parser::expect_name(std::string_view text) {
  if (!take_name(text)) {
    bad("expected '" + std::string(text) + "' before '" + peek().text.substr(0, 40) + "'");
  }
}

void Parser::expect(TokenKind kind, std::string_view what) {
  if (peek().kind != kind) {
    bad("expected " + std::string(what) + " before '" + peek().text.substr(0, 40) + "'");
  }
  ++at_;
}

std::string Parser::expect_identifier() {
  const std::string name = peek().text;
  expect(TokenKind::Name, "a name");
  return name;
}

NodePtr Parser::node(NodeKind kind) const {
  auto made = std::make_unique<Node>();
  made->kind = kind;
  made->line = peek().line;
  return made;
}

void Parser::count_link(int& links) const {
  if (++links > 400) {
    bad("an expression has more than 400 links");
  }
}

void Parser::end_block() {
  expect(TokenKind::BlockEnd, "'%}'");
}

Template Parser::run() {
  Template result;
  result.body = body({});
  if (peek().kind != TokenKind::End) {
    bad("unexpected '" + peek().text.substr(0, 40) + "'");
  }
  result.has_generation = has_generation_;
  return result;
}

/// Statements up to a block that begins with one of `ends`; that name is the next token then.
std::vector<NodePtr> Parser::body(std::initializer_list<std::string_view> ends) {
  const Level level(*this);
  std::vector<NodePtr> out;
  for (;;) {
    const Token& token = peek();
    if (token.kind == TokenKind::End) {
      if (ends.size() > 0) {
        bad("the text ends where '{% " + std::string(*(ends.end() - 1)) + " %}' is missing");
      }
      return out;
    }
    if (token.kind == TokenKind::Data) {
      out.push_back(node(NodeKind::Data));
      out.back()->text = token.text;
      ++at_;
    } else if (token.kind == TokenKind::VariableBegin) {
      ++at_;
      out.push_back(node(NodeKind::Output));
      NodePtr& output = out.back();
      output->children.push_back(tuple());
      expect(TokenKind::VariableEnd, "'}}'");
    } else {
      expect(TokenKind::BlockBegin, "a block");
      if (std::any_of(
              ends.begin(), ends.end(), [&](std::string_view end) { return is_name(end); })) {
        return out;
      }
      out.push_back(statement());
    }
  }
}

NodePtr Parser::statement() {
  if (take_name("if")) {
    return if_statement();
  }
  if (take_name("for")) {
    return for_statement();
  }
  if (take_name("set")) {
    return set_statement();
  }
  if (take_name("macro")) {
    return macro_statement();
  }
  if (take_name("call")) {
    return call_block();
  }
  if (take_name("filter")) {
    return filter_block();
  }
  if (take_name("with")) {
    return with_statement();
  }
  if (take_name("generation")) {
    return generation();
  }
  if (is_name("break") || is_name("continue")) {
    if (loops_ == 0) {
      bad("'" + peek().text + "' stands outside of a loop");
    }
    NodePtr jump = node(is_name("break") ? NodeKind::Break : NodeKind::Continue);
    ++at_;
    end_block();
    return jump;
  }
  bad("the statement '" + peek().text.substr(0, 40) + "' is not known in chat templates");
}

NodePtr Parser::if_statement() {
  const Level level(*this);
  NodePtr result = node(NodeKind::If);
  result->children.push_back(tuple(false));
  end_block();
  result->body = body({"elif", "else", "endif"});
  if (take_name("elif")) {
    result->otherwise.push_back(if_statement());  // takes the endif, too
    return result;
  }
  if (take_name("else")) {
    end_block();
    result->otherwise = body({"endif"});
  }
  expect_name("endif");
  end_block();
  return result;
}

NodePtr Parser::for_statement() {
  NodePtr result = node(NodeKind::For);
  result->children.push_back(target());
  expect_name("in");
  result->children.push_back(tuple(false));
  result->children.push_back(take_name("if") ? expression() : nullptr);
  result->flag = take_name("recursive");
  end_block();
  ++loops_;
  result->body = body({"else", "endfor"});
  --loops_;
  if (take_name("else")) {
    end_block();
    result->otherwise = body({"endfor"});
  }
  expect_name("endfor");
  end_block();
  return result;
}

NodePtr Parser::set_statement() {
  NodePtr goal = target();
  if (take_operator("=")) {
    NodePtr result = node(NodeKind::Set);
    result->children.push_back(std::move(goal));
    result->children.push_back(tuple());
    end_block();
    return result;
  }
  NodePtr result = node(NodeKind::SetBlock);
  result->children.push_back(std::move(goal));
  NodePtr filtered;
  int links = 0;
  while (is_operator("|")) {
    count_link(links);
    filtered = filter(std::move(filtered));
  }
  result->children.push_back(std::move(filtered));
  end_block();
  result->body = body({"endset"});
  expect_name("endset");
  end_block();
  return result;
}

std::vector<Parameter> Parser::signature() {
  std::vector<Parameter> parameters;
  expect_operator("(");
  while (!is_operator(")")) {
    if (!parameters.empty()) {
      expect_operator(",");
    }
    Parameter parameter{expect_identifier(), nullptr};
    if (take_operator("=")) {
      parameter.otherwise = expression();
    } else if (!parameters.empty() && parameters.back().otherwise != nullptr) {
      bad("a parameter without default follows one with default");
    }
    parameters.push_back(std::move(parameter));
  }
  expect_operator(")");
  return parameters;
}

NodePtr Parser::macro_statement() {
  NodePtr result = node(NodeKind::Macro);
  result->text = expect_identifier();
  result->parameters = signature();
  end_block();
  const int outer = std::exchange(loops_, 0);
  const int varargs = varargs_;
  const int kwargs = kwargs_;
  result->body = body({"endmacro"});
  loops_ = outer;
  if (varargs_ > varargs) {
    result->names.push_back("varargs");
  }
  if (kwargs_ > kwargs) {
    result->names.push_back("kwargs");
  }
  expect_name("endmacro");
  if (peek().kind == TokenKind::Name) {
    ++at_;  // the macro's name may be repeated
  }
  end_block();
  return result;
}

NodePtr Parser::call_block() {
  NodePtr result = node(NodeKind::CallBlock);
  if (is_operator("(")) {
    result->parameters = signature();
  }
  result->children.push_back(expression());
  if (result->children[0]->kind != NodeKind::Call) {
    bad("'call' needs a call");
  }
  end_block();
  const int outer = std::exchange(loops_, 0);
  result->body = body({"endcall"});
  loops_ = outer;
  expect_name("endcall");
  end_block();
  return result;
}

NodePtr Parser::filter_block() {
  NodePtr result = node(NodeKind::FilterBlock);
  --at_;  // filter() wants the place of the '|'
  NodePtr filtered = filter(nullptr);
  int links = 0;
  while (is_operator("|")) {
    count_link(links);
    filtered = filter(std::move(filtered));
  }
  result->children.push_back(std::move(filtered));
  end_block();
  result->body = body({"endfilter"});
  expect_name("endfilter");
  end_block();
  return result;
}

NodePtr Parser::with_statement() {
  NodePtr result = node(NodeKind::With);
  while (peek().kind != TokenKind::BlockEnd) {
    if (!result->names.empty()) {
      expect_operator(",");
    }
    result->names.push_back(expect_identifier());
    expect_operator("=");
    result->children.push_back(expression());
  }
  end_block();
  result->body = body({"endwith"});
  expect_name("endwith");
  end_block();
  return result;
}

NodePtr Parser::generation() {
  has_generation_ = true;
  NodePtr result = node(NodeKind::Generation);
  end_block();
  const int outer = std::exchange(loops_, 0);
  result->body = body({"endgeneration"});
  loops_ = outer;
  expect_name("endgeneration");
  end_block();
  return result;
}

Template parse(std::string_view source) {
  return Parser(source).run();
}

}  // namespace kamerton::text::jinja
