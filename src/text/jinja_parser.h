// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "jinja_ast.h"
#include "jinja_lexer.h"

namespace kamerton::text::jinja {

/// Recursive descent, with the precedences of Jinja 3.1.
class Parser {
 public:
  explicit Parser(std::string_view source) : tokens_(tokenize(source)) {}
  Template run();

 private:
  // Tokens
  const Token& peek(size_t ahead = 0) const {
    return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
  }
  bool is_operator(std::string_view text, size_t ahead = 0) const;
  bool is_name(std::string_view text, size_t ahead = 0) const;
  bool take_operator(std::string_view text);
  bool take_name(std::string_view text);
  void expect_operator(std::string_view text);
  void expect_name(std::string_view text);
  void expect(TokenKind kind, std::string_view what);
  std::string expect_identifier();
  [[noreturn]] void bad(const std::string& what) const;
  NodePtr node(NodeKind kind) const;

  // Statements (jinja_parser.cpp)
  std::vector<NodePtr> body(std::initializer_list<std::string_view> ends);
  NodePtr statement();
  NodePtr if_statement();
  NodePtr for_statement();
  NodePtr set_statement();
  NodePtr macro_statement();
  NodePtr call_block();
  NodePtr filter_block();
  NodePtr with_statement();
  NodePtr generation();
  std::vector<Parameter> signature();
  void end_block();

  // Expressions (jinja_expressions.cpp)
  NodePtr expression(bool with_condition = true);
  NodePtr tuple(bool with_condition = true, bool parenthesized = false);
  NodePtr target();
  NodePtr condition();
  NodePtr or_expression();
  NodePtr and_expression();
  NodePtr not_expression();
  NodePtr comparison();
  NodePtr binary(int level);
  NodePtr unary(bool with_filter);
  NodePtr primary();
  NodePtr postfix(NodePtr inner);
  NodePtr filters(NodePtr inner);
  NodePtr subscript(NodePtr inner);
  NodePtr subscript_argument();
  NodePtr filter(NodePtr inner);
  NodePtr test(NodePtr inner);
  NodePtr list_literal();
  NodePtr dict_literal();
  CallArguments arguments();
  bool ends_tuple() const;

  /// Counts nesting; broken off before the stack is.
  class Level {
   public:
    explicit Level(Parser& parser) : parser_(parser) {
      if (++parser_.depth_ > 150) {
        parser_.bad("the template is nested too deeply");
      }
    }
    ~Level() { --parser_.depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    Parser& parser_;
  };
  /// The same for chains like a + b + c, which become deep trees without recursion here.
  void count_link(int& links) const;

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
  int loops_ = 0;
  int varargs_ = 0;  ///< times that the names varargs and kwargs were read
  int kwargs_ = 0;
  bool has_generation_ = false;
};

}  // namespace kamerton::text::jinja
