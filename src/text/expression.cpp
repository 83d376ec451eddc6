// SPDX-License-Identifier: Apache-2.0
#define PCRE2_CODE_UNIT_WIDTH 8
#include "expression.h"

#include <fmt/format.h>
#include <pcre2.h>

#include "kamerton/core/error.h"

#include "unicode.h"
#include "unicode_tables.h"

namespace kamerton::text {
namespace {

constexpr std::string_view kSpaceRanges =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

/// What Oniguruma's table of Latin-1 adds to \w, but not to a \w inside a class: raised digits and
/// fractions.
constexpr std::string_view kLatinWord = R"(\x{b2}\x{b3}\x{b9}\x{bc}-\x{be})";

/// Letters that Unicode files under symbols (Other_Alphabetic).
constexpr std::string_view kAlphabeticSymbols =
    R"(\x{24b6}-\x{24e9}\x{1f130}-\x{1f149}\x{1f150}-\x{1f169}\x{1f170}-\x{1f189})";

/// Ideographs that PCRE2's Unicode 14 does not know yet.
constexpr std::string_view kNewerHan = R"(\x{2b739}\x{2ebf0}-\x{2ee5d}\x{31350}-\x{323af})";

/// Characters of a general category ("L", "Lu") that PCRE2 may be too old to know, as ranges.
std::string newer_ranges(std::string_view name) {
  std::string out;
  for (size_t i = 0; i < kNewerSize; ++i) {
    if (category_name(kNewer[i].category).starts_with(name)) {
      out += fmt::format("\\x{{{:x}}}-\\x{{{:x}}}", kNewer[i].first, kNewer[i].last);
    }
  }
  return out;
}

/// The inside of a class of \w: alphabetic characters, marks, digits, connectors.
std::string word_class(bool in_class) {
  std::string out(kAlphabeticSymbols);
  out += in_class ? "" : kLatinWord;
  for (const char* name : {"L", "M", "Nd", "Nl", "Pc"}) {
    out += std::string("\\p{") + name + "}" + newer_ranges(name);
  }
  return out;
}

/// Writes an expression of Oniguruma's dialect in PCRE2's.
class Translator {
 public:
  explicit Translator(std::string_view pattern) : pattern_(pattern) {}

  std::string run() {
    while (at_ < pattern_.size()) {
      const char c = pattern_[at_++];
      if (c == '\\' && at_ < pattern_.size()) {
        escape(pattern_[at_++]);
      } else if (c == '[' && !in_class_) {
        open_class();
      } else {
        in_class_ = in_class_ && c != ']';
        out_.push_back(c);
      }
    }
    return std::move(out_);
  }

 private:
  void open_class() {
    in_class_ = true;
    out_.push_back('[');
    if (at_ < pattern_.size() && pattern_[at_] == '^') {
      out_.push_back(pattern_[at_++]);
    }
    if (at_ < pattern_.size() && pattern_[at_] == ']') {
      out_.append("\\]");
      ++at_;
    }
  }

  /// A class's inside, alone or as part of the class that is open.
  void put_class(std::string_view inside, bool negated) {
    if (in_class_) {
      out_.append(inside);
    } else {
      out_.append(negated ? "[^" : "[").append(inside).append("]");
    }
  }

  void escape(char next) {
    if (next == 's' || (next == 'S' && !in_class_)) {
      put_class(kSpaceRanges, next == 'S');
    } else if (next == 'h') {  // a hexadecimal digit in Oniguruma
      put_class("0-9a-fA-F", false);
    } else if (next == 'w' || (next == 'W' && !in_class_)) {
      put_class(word_class(in_class_), next == 'W');
    } else if (next == 'd' || (next == 'D' && !in_class_)) {
      put_class("\\p{Nd}" + newer_ranges("Nd"), next == 'D');
    } else if ((next == 'b' || next == 'B') && !in_class_) {
      const std::string w = "[" + word_class(false) + "]";
      const bool edge = next == 'b';
      out_ += "(?:(?<=" + w + ")(?" + (edge ? "!" : "=") + w + ")|(?<!" + w + ")(?" +
              (edge ? "=" : "!") + w + "))";
    } else if (next == 'p' || next == 'P') {
      property(next);
    } else {
      out_.push_back('\\');
      out_.push_back(next);
    }
  }

  void property(char kind) {
    const size_t end = at_ < pattern_.size() && pattern_[at_] == '{' ? pattern_.find('}', at_)
                                                                     : std::string_view::npos;
    if (end == std::string_view::npos) {
      out_.push_back('\\');
      out_.push_back(kind);
      return;
    }
    std::string_view name = pattern_.substr(at_ + 1, end - at_ - 1);
    at_ = end + 1;
    bool negated = kind == 'P';
    if (name.starts_with('^')) {
      negated = !negated;
      name.remove_prefix(1);
    }
    // Longer names are scripts; PCRE2's plain \p{Han} holds script extensions too.
    const bool script = name.size() > 2 && name != "Any" && name.find(':') == name.npos;
    const std::string property = fmt::format("{{{}{}}}", script ? "sc:" : "", name);
    if (in_class_ && negated) {
      out_ += "\\P" + property;
    } else {
      const std::string newer =
          script ? std::string(name == "Han" ? kNewerHan : "") : newer_ranges(name);
      put_class("\\p" + property + newer, negated);
    }
  }

  std::string_view pattern_;
  size_t at_ = 0;
  bool in_class_ = false;
  std::string out_;
};

struct Workspace {
  pcre2_match_data* data = pcre2_match_data_create(64, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(32 * 1024, 16 * 1024 * 1024, nullptr);
  Workspace() {
    pcre2_set_match_limit(context, 50'000'000);
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  ~Workspace() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
};

}  // namespace

struct Regex::Code {
  pcre2_code* code = nullptr;
  std::string pattern;
  Code() = default;
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  ~Code() { pcre2_code_free(code); }
};

Regex::Regex(std::string_view pattern, const std::string& origin) {
  auto code = std::make_shared<Code>();
  code->pattern = Translator(pattern).run();
  int error = 0;
  PCRE2_SIZE at = 0;
  code->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(code->pattern.data()),
                             code->pattern.size(),
                             PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK | PCRE2_NEVER_BACKSLASH_C,
                             &error,
                             &at,
                             nullptr);
  if (code->code == nullptr) {
    char message[256];
    pcre2_get_error_message(error, reinterpret_cast<PCRE2_UCHAR*>(message), sizeof message);
    throw core::Error(core::ErrorKind::Data,
                      {.where = "text.regex",
                       .what = origin + ": a regular expression cannot be read: " + message,
                       .got = std::string(pattern.substr(0, 200)),
                       .allowed = "",
                       .hint = ""});
  }
  pcre2_jit_compile(code->code, PCRE2_JIT_COMPLETE);  // where it fails, the interpreter serves
  code_ = std::move(code);
}

void Regex::each_match(std::string_view s,
                       const std::function<void(Span)>& visit,
                       bool empty_ones) const {
  thread_local Workspace work;
  size_t last_end = std::string_view::npos;
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(s.data() == nullptr ? "" : s.data());
  size_t from = 0;
  while (from <= s.size()) {
    const int found = pcre2_match(
        code_->code, subject, s.size(), from, PCRE2_NO_UTF_CHECK, work.data, work.context);
    if (found == PCRE2_ERROR_NOMATCH) {
      return;
    }
    if (found < 0) {
      throw core::Error(core::ErrorKind::Data,
                        {.where = "text.regex",
                         .what = "a pre-tokenizer's expression takes too long on this text",
                         .got = "PCRE2 error " + std::to_string(found),
                         .allowed = "",
                         .hint = "shorten the record"});
    }
    const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(work.data);
    if (ends[1] > ends[0]) {
      visit({static_cast<uint32_t>(ends[0]), static_cast<uint32_t>(ends[1])});
      from = last_end = ends[1];
    } else {
      from = ends[0];
      if (empty_ones && from != last_end) {
        visit({static_cast<uint32_t>(from), static_cast<uint32_t>(from)});
        last_end = from;
      }
      if (from >= s.size()) {
        return;
      }
      from += char_length(static_cast<unsigned char>(s[from]));
    }
  }
}

}  // namespace kamerton::text
