// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "jinja_interpreter.h"

namespace kamerton::text::jinja {
namespace {

[[noreturn]] void mismatch(const std::string& op, const Value& a, const Value& b) {
  if (a.is(Type::Undefined) || b.is(Type::Undefined)) {
    fail("'" + undefined_name(a.is(Type::Undefined) ? a : b) + "' is undefined");
  }
  fail("'" + op + "' does not work between " + type_name(a) + " and " + type_name(b));
}

/// A checked operation; the built-in returns true on overflow.
template <class Builtin>
Integer checked(Builtin builtin, Integer a, Integer b) {
  Integer out = 0;
  if (builtin(a, b, &out)) {
    fail("an integer is beyond 38 digits");
  }
  return out;
}

Integer add(Integer a, Integer b) {
  return checked(
      [](Integer x, Integer y, Integer* z) { return __builtin_add_overflow(x, y, z); }, a, b);
}
Integer subtract(Integer a, Integer b) {
  return checked(
      [](Integer x, Integer y, Integer* z) { return __builtin_sub_overflow(x, y, z); }, a, b);
}
Integer multiply(Integer a, Integer b) {
  return checked(
      [](Integer x, Integer y, Integer* z) { return __builtin_mul_overflow(x, y, z); }, a, b);
}

/// Rounds down, as Python does.
Integer floor_divide(Integer a, Integer b) {
  const Integer quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

Value power(const Value& a, const Value& b) {
  if (a.is(Type::Float) || b.is(Type::Float) || b.as_int() < 0) {
    return Value::real(std::pow(a.as_double(), b.as_double()));
  }
  if (b.as_int() > 1000) {
    fail("an exponent is larger than 1000");
  }
  Integer out = 1;
  for (Integer i = 0; i < b.as_int(); ++i) {
    out = multiply(out, a.as_int());
  }
  return Value::integer(out);
}

Value divide(const std::string& op, const Value& a, const Value& b) {
  if (b.as_double() == 0) {
    fail("division by zero");
  }
  if (op == "/") {
    return Value::real(a.as_double() / b.as_double());
  }
  const bool real = a.is(Type::Float) || b.is(Type::Float);
  if (real) {
    const double quotient = std::floor(a.as_double() / b.as_double());
    return Value::real(op == "//" ? quotient : a.as_double() - quotient * b.as_double());
  }
  const Integer quotient = floor_divide(a.as_int(), b.as_int());
  return Value::integer(op == "//" ? quotient : a.as_int() - quotient * b.as_int());
}

Value arithmetic(const std::string& op, const Value& a, const Value& b) {
  if (op == "/" || op == "//" || op == "%") {
    return divide(op, a, b);
  }
  if (op == "**") {
    return power(a, b);
  }
  if (a.is(Type::Float) || b.is(Type::Float)) {
    const double x = a.as_double();
    const double y = b.as_double();
    return Value::real(op == "+" ? x + y : op == "-" ? x - y : x * y);
  }
  return Value::integer(op == "+"   ? add(a.as_int(), b.as_int())
                        : op == "-" ? subtract(a.as_int(), b.as_int())
                                    : multiply(a.as_int(), b.as_int()));
}

Value joined(const Interpreter& interpreter, const Value& a, const Value& b) {
  if (a.is(Type::String)) {
    if (!a.is_markup() && !b.is_markup()) {
      return interpreter.text(a.text() + b.text());
    }
    const auto part = [](const Value& v) { return v.is_markup() ? v.text() : escaped(v.text()); };
    return Value::markup(interpreter.text(part(a) + part(b)).text());
  }
  std::vector<Value> items = a.items();
  items.insert(items.end(), b.items().begin(), b.items().end());
  return Value::list(std::move(items), a.type());
}

Value repeated(const Interpreter& interpreter, const Value& a, Integer times) {
  const Integer count = times < 0 ? 0 : times;
  const auto size =
      static_cast<Integer>(a.is(Type::String) ? a.text().size() : a.items().size() * sizeof(Value));
  if (count > (Integer{1} << 40)) {
    fail("a value is repeated too often");
  }
  interpreter.check_size(static_cast<size_t>(std::min<Integer>(size * count, Integer{1} << 60)));
  if (a.is(Type::String)) {
    std::string out;
    for (Integer i = 0; i < count && size > 0; ++i) {
      out += a.text();
    }
    return interpreter.text(std::move(out));
  }
  std::vector<Value> items;
  for (Integer i = 0; i < count && size > 0; ++i) {
    items.insert(items.end(), a.items().begin(), a.items().end());
  }
  return Value::list(std::move(items), a.type());
}

bool is_operand_sequence(const Value& value) {
  return value.is(Type::String) ||
         ((value.is(Type::List) || value.is(Type::Tuple)) && value.list_data().view == nullptr);
}

bool is_integer(const Value& value) {
  return value.is(Type::Int) || value.is(Type::Bool);
}

}  // namespace

Value negated(const Value& value) {
  return value.is(Type::Float) ? Value::real(-value.as_double())
                               : Value::integer(subtract(0, value.as_int()));
}

Value operate(const Interpreter& interpreter,
              const std::string& op,
              const Value& a,
              const Value& b) {
  if (op == "~") {
    return interpreter.text(to_str(a) + to_str(b));
  }
  if (a.is_number() && b.is_number()) {
    return arithmetic(op, a, b);
  }
  if (op == "+" && is_operand_sequence(a) && a.type() == b.type()) {
    return joined(interpreter, a, b);
  }
  if (op == "*" && is_operand_sequence(a) && is_integer(b)) {
    return repeated(interpreter, a, b.as_int());
  }
  if (op == "*" && is_integer(a) && is_operand_sequence(b)) {
    return repeated(interpreter, b, a.as_int());
  }
  if (op == "%" && a.is(Type::String)) {
    return interpreter.text(percent_format(a.text(), b));
  }
  mismatch(op, a, b);
}

int64_t to_index(const Value& value) {
  if (!is_integer(value)) {
    fail(std::string("an index must be an integer, not ") + type_name(value));
  }
  const Integer limit = Integer{1} << 60;
  return static_cast<int64_t>(std::max(-limit, std::min(limit, value.as_int())));
}

Value sliced(const Interpreter& interpreter,
             const Value& value,
             const Value& from,
             const Value& to,
             const Value& step_value) {
  if (value.is(Type::Undefined)) {
    fail("'" + undefined_name(value) + "' is undefined");
  }
  if (!is_operand_sequence(value)) {
    return Value::undefined("slice");
  }
  const int64_t step = step_value.is(Type::None) ? 1 : to_index(step_value);
  if (step == 0) {
    fail("a slice's step is zero");
  }
  const std::vector<Value> items = iterate(value);
  const auto count = static_cast<int64_t>(items.size());
  spend(count / 16);
  const auto bound = [&](const Value& given, int64_t otherwise) {
    if (given.is(Type::None)) {
      return otherwise;
    }
    int64_t i = to_index(given);
    i += i < 0 ? count : 0;
    return std::max<int64_t>(step > 0 ? 0 : -1, std::min(i, step > 0 ? count : count - 1));
  };
  const int64_t begin = bound(from, step > 0 ? 0 : count - 1);
  const int64_t end = bound(to, step > 0 ? count : -1);
  std::vector<Value> out;
  for (int64_t i = begin; step > 0 ? i < end : i > end; i += step) {
    out.push_back(items[static_cast<size_t>(i)]);
  }
  if (!value.is(Type::String)) {
    return Value::list(std::move(out), value.type());
  }
  std::string text;
  for (const Value& part : out) {
    text += part.text();
  }
  return interpreter.text(std::move(text));
}

}  // namespace kamerton::text::jinja
