// SPDX-License-Identifier: Apache-2.0
#include "jinja_lexer.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "unicode.h"

namespace kamerton::text::jinja {
namespace {

/// All line ends to \n; one at the end of the text is dropped.
std::string normalize_newlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out.push_back('\n');
      i += i + 1 < source.size() && source[i + 1] == '\n' ? 1 : 0;
    } else {
      out.push_back(source[i]);
    }
  }
  if (out.ends_with('\n')) {
    out.pop_back();
  }
  return out;
}

bool is_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

void strip_right(std::string& text) {
  while (!text.empty()) {
    const size_t last = previous_start(text, text.size());
    if ((char_flags(char_at(text, last)) & kSpace) == 0) {
      break;
    }
    text.resize(last);
  }
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalize_newlines(source)) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) {
      const size_t tag = find_tag(at_);
      std::string data = source_.substr(at_, tag - at_);
      if (tag == source_.size()) {
        add_data(std::move(data));
        break;
      }
      const char kind = source_[tag + 1];
      const char sign = sign_at(tag + 2);
      strip_before(data, sign, kind == '{');
      const size_t data_size = tag - at_;
      const int newlines =
          static_cast<int>(std::count(source_.begin() + static_cast<ptrdiff_t>(at_),
                                      source_.begin() + static_cast<ptrdiff_t>(at_ + data_size),
                                      '\n'));
      add_data(std::move(data));
      line_ += newlines;
      at_ = tag + 2 + (sign != '\0' ? 1 : 0);
      if (kind == '#') {
        skip_comment();
      } else if (kind == '%' && at_raw()) {
        read_raw();
      } else {
        read_code(kind);
      }
    }
    add(TokenKind::End, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void bad(const std::string& what) const {
    fail("the template's line " + std::to_string(line_) + ": " + what);
  }

  void add(TokenKind kind, std::string text, Value number = {}) {
    tokens_.push_back({kind, std::move(text), std::move(number), line_});
  }

  void add_data(std::string data) {
    if (!data.empty()) {
      add(TokenKind::Data, std::move(data));
    }
  }

  size_t find_tag(size_t from) const {
    for (size_t i = source_.find('{', from); i != std::string::npos; i = source_.find('{', i + 1)) {
      if (i + 1 < source_.size() &&
          (source_[i + 1] == '{' || source_[i + 1] == '%' || source_[i + 1] == '#')) {
        return i;
      }
    }
    return source_.size();
  }

  char sign_at(size_t i) const {
    return i < source_.size() && (source_[i] == '-' || source_[i] == '+') ? source_[i] : '\0';
  }

  /// '-' before a tag strips the text before it; else blanks that a block or comment stands behind
  /// alone go.
  void strip_before(std::string& data, char sign, bool variable) const {
    if (sign == '-') {
      strip_right(data);
      return;
    }
    if (sign == '+' || variable) {
      return;
    }
    const size_t newline = data.rfind('\n');
    const size_t start = newline == std::string::npos ? 0 : newline + 1;
    if (start == 0 && !line_starting_) {
      return;
    }
    if (std::all_of(data.begin() + static_cast<ptrdiff_t>(start), data.end(), is_space)) {
      data.resize(start);
    }
  }

  void advance(size_t to) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<ptrdiff_t>(at_),
                                         source_.begin() + static_cast<ptrdiff_t>(to),
                                         '\n'));
    line_starting_ = to > at_ && source_[to - 1] == '\n';
    at_ = to;
  }

  size_t skip_spaces(size_t i) const {
    while (i < source_.size() && is_space(source_[i])) {
      ++i;
    }
    return i;
  }

  /// Where the text goes on behind a closing tag (2 bytes) at i; trim: a newline right behind it
  /// goes too.
  size_t behind(size_t i, char sign, bool trim) const {
    size_t end = i + 2;
    if (sign == '-') {
      return skip_spaces(end);
    }
    if (trim && sign != '+' && end < source_.size() && source_[end] == '\n') {
      ++end;
    }
    return end;
  }

  void skip_comment() {
    const size_t close = source_.find("#}", at_);
    if (close == std::string::npos) {
      bad("a comment is not closed");
    }
    const char sign = close > at_ ? sign_at(close - 1) : '\0';
    advance(behind(close, sign, true));
  }

  /// Reads "word" with blanks around at i; the place behind, or npos.
  size_t word_at(size_t i, std::string_view word) const {
    i = skip_spaces(i);
    return source_.compare(i, word.size(), word) == 0 ? skip_spaces(i + word.size())
                                                      : std::string::npos;
  }

  bool at_raw() const {
    const size_t i = word_at(at_, "raw");
    return i != std::string::npos &&
           (source_.compare(i, 2, "%}") == 0 || source_.compare(i, 3, "-%}") == 0);
  }

  void read_raw() {
    const size_t open = word_at(at_, "raw");
    const bool strips = source_[open] == '-';
    advance(strips ? skip_spaces(open + 3) : open + 2);
    for (size_t i = source_.find("{%", at_); i != std::string::npos;
         i = source_.find("{%", i + 2)) {
      const char sign = sign_at(i + 2);
      const size_t close = word_at(i + 2 + (sign != '\0' ? 1 : 0), "endraw");
      if (close == std::string::npos) {
        continue;
      }
      const char end_sign = sign_at(close);
      const size_t end = close + (end_sign != '\0' ? 1 : 0);
      if (source_.compare(end, 2, "%}") != 0) {
        continue;
      }
      std::string data = source_.substr(at_, i - at_);
      strip_before(data, sign, false);
      add_data(std::move(data));
      advance(behind(end, end_sign, true));
      return;
    }
    bad("a raw block is not closed");
  }

  void read_code(char kind) {
    const bool variable = kind == '{';
    add(variable ? TokenKind::VariableBegin : TokenKind::BlockBegin, "");
    const std::string_view close = variable ? "}}" : "%}";
    open_.clear();
    for (;;) {
      advance(skip_spaces(at_));
      if (at_ >= source_.size()) {
        bad(variable ? "'{{' is not closed" : "'{%' is not closed");
      }
      if (open_.empty()) {
        const char sign = sign_at(at_);
        const size_t end = at_ + (sign == '-' || (sign == '+' && !variable) ? 1 : 0);
        if (source_.compare(end, 2, close) == 0) {
          add(variable ? TokenKind::VariableEnd : TokenKind::BlockEnd, "");
          advance(behind(end, end > at_ ? sign : '\0', !variable));
          return;
        }
      }
      read_token();
    }
  }

  void read_token() {
    const char c = source_[at_];
    if (c >= '0' && c <= '9') {
      read_number();
    } else if (c == '\'' || c == '"') {
      read_string(c);
    } else if (c == '_' || (char_flags(char_at(source_, at_)) & (kLetter)) != 0) {
      size_t end = at_;
      while (end < source_.size() && (source_[end] == '_' || (char_flags(char_at(source_, end)) &
                                                              (kLetter | kNumber | kMark)) != 0)) {
        end += char_length(static_cast<unsigned char>(source_[end]));
      }
      add(TokenKind::Name, source_.substr(at_, end - at_));
      at_ = end;
    } else {
      read_operator();
    }
  }

  void read_operator() {
    constexpr std::string_view kTwo[] = {"//", "**", "==", "!=", ">=", "<="};
    for (const std::string_view two : kTwo) {
      if (source_.compare(at_, 2, two) == 0) {
        add(TokenKind::Operator, std::string(two));
        at_ += 2;
        return;
      }
    }
    const char c = source_[at_];
    if (std::string_view("+-/*%~[](){}><=.:|,;").find(c) == std::string_view::npos) {
      bad("this character cannot stand in an expression: " +
          source_.substr(at_, char_length(static_cast<unsigned char>(c))));
    }
    if (c == '(' || c == '[' || c == '{') {
      open_.push_back(c);
    } else if (c == ')' || c == ']' || c == '}') {
      const char wanted = c == ')' ? '(' : c == ']' ? '[' : '{';
      if (open_.empty() || open_.back() != wanted) {
        bad(std::string("unexpected '") + c + "'");
      }
      open_.pop_back();
    }
    add(TokenKind::Operator, std::string(1, c));
    ++at_;
  }

  std::string digits(size_t& i) const {
    std::string out;
    while (i < source_.size() && ((source_[i] >= '0' && source_[i] <= '9') ||
                                  (source_[i] == '_' && i + 1 < source_.size() &&
                                   source_[i + 1] >= '0' && source_[i + 1] <= '9'))) {
      if (source_[i] != '_') {
        out.push_back(source_[i]);
      }
      ++i;
    }
    return out;
  }

  bool digit_at(size_t i) const {
    return i < source_.size() && source_[i] >= '0' && source_[i] <= '9';
  }

  void read_number() {
    size_t i = at_;
    std::string text = digits(i);
    bool real = false;
    if (i + 1 < source_.size() && source_[i] == '.' && digit_at(i + 1) && !after_dot()) {
      real = true;
      text += '.';
      ++i;
      text += digits(i);
    }
    if (i < source_.size() && (source_[i] == 'e' || source_[i] == 'E')) {
      const bool sign = i + 1 < source_.size() && (source_[i + 1] == '-' || source_[i + 1] == '+');
      if (digit_at(i + (sign ? 2 : 1))) {
        real = true;
        text += source_.substr(i, sign ? 2 : 1);
        i += sign ? 2 : 1;
        text += digits(i);
      }
    }
    at_ = i;
    add(TokenKind::Number, "", real ? real_value(text) : integer_value(text));
  }

  /// "x.1.2": the digits belong to the path.
  bool after_dot() const { return at_ > 0 && source_[at_ - 1] == '.'; }

  Value real_value(const std::string& text) const {
    double value = 0;
    const auto read = std::from_chars(text.data(), text.data() + text.size(), value);
    if (read.ec != std::errc()) {
      bad("the number " + text.substr(0, 40) + " is out of range");
    }
    return Value::real(value);
  }

  Value integer_value(const std::string& text) const {
    if (text.size() > 37) {
      bad("the number " + text.substr(0, 40) + " is out of range");
    }
    Integer value = 0;
    for (const char c : text) {
      value = value * 10 + (c - '0');
    }
    return Value::integer(value);
  }

  void read_string(char quote) {
    std::string out;
    size_t i = at_ + 1;
    while (i < source_.size() && source_[i] != quote) {
      if (source_[i] == '\\' && i + 1 < source_.size()) {
        i = read_escape(i + 1, out);
      } else {
        out.push_back(source_[i++]);
      }
    }
    if (i >= source_.size()) {
      bad("a string is not closed");
    }
    add(TokenKind::String, std::move(out));
    advance(i + 1);
  }

  /// The escape whose letter is at i; returns where the string goes on.
  size_t read_escape(size_t i, std::string& out) const {
    constexpr std::string_view kLetters = "ntr\\'\"abfv\n";
    constexpr std::string_view kMeanings = "\n\t\r\\'\"\a\b\f\v";
    const char c = source_[i];
    if (const size_t at = kLetters.find(c); at != std::string_view::npos) {
      if (c != '\n') {
        out.push_back(kMeanings[at]);
      }
      return i + 1;
    }
    const int wanted = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    const bool octal = c >= '0' && c <= '7';
    if (wanted == 0 && !octal) {
      out.push_back('\\');  // Python keeps the backslash before other letters
      return i;
    }
    uint32_t value = 0;
    size_t k = octal ? i : i + 1;
    const size_t end = k + static_cast<size_t>(octal ? 3 : wanted);
    for (; k < end && k < source_.size(); ++k) {
      const char d = source_[k];
      const int digit = d >= '0' && d <= '9'   ? d - '0'
                        : d >= 'a' && d <= 'f' ? d - 'a' + 10
                        : d >= 'A' && d <= 'F' ? d - 'A' + 10
                                               : 99;
      if (digit >= (octal ? 8 : 16)) {
        break;
      }
      value = value * (octal ? 8 : 16) + static_cast<uint32_t>(digit);
    }
    if ((!octal && k != end) || value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) {
      bad("a string holds a broken \\x, \\u or \\U escape");
    }
    append_char(out, value);
    return k;
  }

  std::string source_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::string open_;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) {
  if (source.size() > (size_t{4} << 20)) {
    fail("the template is longer than 4 MiB");
  }
  if (valid_prefix(source) != source.size()) {
    fail("the template is not UTF-8");
  }
  return Lexer(source).run();
}

}  // namespace kamerton::text::jinja
