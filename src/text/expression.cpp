// SPDX-License-Identifier: Apache-2.0
#define PCRE2_CODE_UNIT_WIDTH 8
#include "expression.h"

#include <pcre2.h>

#include "kamerton/core/error.h"

namespace kamerton::text {
namespace {

constexpr std::string_view kSpaceRanges =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

/// PCRE2's \s holds U+180E, which has left White_Space; \h is a hexadecimal digit in Oniguruma.
std::string translate(std::string_view pattern) {
  std::string out;
  int in_class = 0;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char next = pattern[++i];
      if (next == 's') {
        out.append(in_class > 0 ? std::string(kSpaceRanges)
                                : "[" + std::string(kSpaceRanges) + "]");
      } else if (next == 'S' && in_class == 0) {
        out.append("[^").append(kSpaceRanges).append("]");
      } else if (next == 'h') {
        out.append(in_class > 0 ? "0-9a-fA-F" : "[0-9a-fA-F]");
      } else {
        out.push_back(c);
        out.push_back(next);
      }
      continue;
    }
    if (c == '[') {
      in_class = 1;
      out.push_back(c);
      if (i + 1 < pattern.size() && pattern[i + 1] == '^') {
        out.push_back(pattern[++i]);
      }
      if (i + 1 < pattern.size() && pattern[i + 1] == ']') {
        out.append("\\]");
        ++i;
      }
      continue;
    }
    if (c == ']') {
      in_class = 0;
    }
    out.push_back(c);
  }
  return out;
}

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
  code->pattern = translate(pattern);
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

void Regex::each_match(std::string_view s, const std::function<void(Span)>& visit) const {
  thread_local Workspace work;
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
      from = ends[1];
    } else {
      from = ends[0];
      if (from >= s.size()) {
        return;
      }
      from += char_length(static_cast<unsigned char>(s[from]));
    }
  }
}

}  // namespace kamerton::text
