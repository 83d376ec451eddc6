// SPDX-License-Identifier: Apache-2.0
#include "scanner.h"

namespace kamerton::text {
namespace {

enum Kind : unsigned char { Letter, Number, Space, Other, End };

/// Walks one range; `at` is always a character's start.
class Walker {
 public:
  Walker(std::string_view s, Span range) : s_(s.substr(0, range.end)), at_(range.begin) {}

  bool done() const { return at_ >= s_.size(); }
  size_t at() const { return at_; }
  void move_to(size_t i) { at_ = i; }

  Kind kind(size_t i) const {
    if (i >= s_.size()) {
      return End;
    }
    const uint16_t flags = char_flags(char_at(s_, i));
    return (flags & kLetter) != 0   ? Letter
           : (flags & kNumber) != 0 ? Number
           : (flags & kSpace) != 0  ? Space
                                    : Other;
  }
  size_t after(size_t i) const { return i + char_length(static_cast<unsigned char>(s_[i])); }
  char byte(size_t i) const { return i < s_.size() ? s_[i] : '\0'; }

  size_t run(size_t i, Kind wanted) const {
    while (i < s_.size()) {
      const auto lead = static_cast<unsigned char>(s_[i]);
      if (wanted == Letter && lead < 0x80) {
        if (static_cast<unsigned>((lead | 0x20) - 'a') > 25u) {
          return i;
        }
        ++i;
        continue;
      }
      if (kind(i) != wanted) {
        return i;
      }
      i = after(i);
    }
    return i;
  }

  /// \s+(?!\S)|\s+ from i on, whose run of spaces ends at `end`.
  size_t spaces(size_t i, size_t end) const {
    if (end == s_.size()) {
      return end;
    }
    const size_t last = previous_start(s_, end);
    return last > i ? last : end;
  }

  /// End of a contraction that starts with the apostrophe at i, or i.
  size_t contraction(size_t i, bool any_case) const {
    const auto letter = [&](size_t k) {
      const char c = byte(k);
      return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
    };
    const char first = letter(i + 1);
    if (first == 's' || first == 't' || first == 'm' || first == 'd') {
      return i + 2;
    }
    const char second = letter(i + 2);
    if ((first == 'r' && second == 'e') || (first == 'v' && second == 'e') ||
        (first == 'l' && second == 'l')) {
      return i + 3;
    }
    // U+017F, the long s, folds to s.
    return any_case && byte(i + 1) == '\xC5' && byte(i + 2) == '\xBF' ? i + 3 : i;
  }

  size_t gpt2_end() const {
    const size_t i = at_;
    if (byte(i) == '\'') {
      if (const size_t end = contraction(i, false); end > i) {
        return end;
      }
    }
    const Kind here = kind(i);
    if (here == Space) {
      if (byte(i) == ' ' && i + 1 < s_.size()) {
        if (const Kind next = kind(i + 1); next != Space) {
          return run(i + 1, next);
        }
      }
      return spaces(i, run(i, Space));
    }
    return run(i, here);
  }

  /// cl100k: as Llama 3's, but blanks up to the text's end are one piece.
  size_t cl100k_end() const {
    if (kind(at_) == Space) {
      if (const size_t end = run(at_, Space); end == s_.size()) {
        return end;
      }
    }
    return llama3_end(3);
  }

  size_t o200k_end() const {
    const size_t i = at_;
    const Kind here = kind(i);
    const bool led = byte(i) != '\r' && byte(i) != '\n' && here != Letter && here != Number;
    for (const bool lower : {true, false}) {
      if (const size_t end = led ? cased_word(after(i), lower) : 0; end > 0) {
        return end;
      }
      if (const size_t end = cased_word(i, lower); end > 0) {
        return end;
      }
    }
    if (here == Number) {
      return numbers(i, 3);
    }
    const bool led_by_blank = byte(i) == ' ' && kind(i + 1) == Other;
    if (here == Other || led_by_blank) {
      size_t end = run(led_by_blank ? i + 1 : i, Other);
      while (byte(end) == '\r' || byte(end) == '\n' || byte(end) == '/') {
        ++end;
      }
      return end;
    }
    return blanks_end(i);
  }

  size_t llama3_end(int digits) const {
    const size_t i = at_;
    if (byte(i) == '\'') {
      if (const size_t end = contraction(i, true); end > i) {
        return end;
      }
    }
    const Kind here = kind(i);
    if (here == Letter) {
      return run(i, Letter);
    }
    if (here == Number) {
      return numbers(i, digits);
    }
    if (byte(i) != '\r' && byte(i) != '\n' && kind(after(i)) == Letter) {
      return run(after(i), Letter);
    }
    const bool led_by_blank = byte(i) == ' ' && kind(i + 1) == Other;
    if (here == Other || led_by_blank) {
      size_t end = run(led_by_blank ? i + 1 : i, Other);
      while (byte(end) == '\r' || byte(end) == '\n') {
        ++end;
      }
      return end;
    }
    return blanks_end(i);
  }

 private:
  size_t numbers(size_t i, int digits) const {
    size_t end = after(i);
    for (int n = 1; n < digits && kind(end) == Number; ++n) {
      end = after(end);
    }
    return end;
  }

  /// \s*[\r\n]+|\s+(?!\S)|\s+
  size_t blanks_end(size_t i) const {
    const size_t end = run(i, Space);
    const size_t newline = s_.substr(i, end - i).find_last_of("\r\n");
    return newline != std::string_view::npos ? i + newline + 1 : spaces(i, end);
  }

  uint16_t flags(size_t i) const { return i < s_.size() ? char_flags(char_at(s_, i)) : 0; }
  size_t run_of(size_t i, uint16_t wanted) const {
    while ((flags(i) & wanted) != 0) {
      i = after(i);
    }
    return i;
  }

  /// [upper side]*[lower side]+(contraction)? or, not `lower`, [upper side]+[lower
  /// side]*(contraction)? from i on; 0 where there is none. Characters of both sides (Lm, Lo, M)
  /// may end the first run or begin the second.
  size_t cased_word(size_t i, bool lower) const {
    const size_t upper = run_of(i, kUpperSide);
    size_t end = run_of(upper, kLowerSide);
    if (lower && end == upper) {
      while (end > i && (flags(previous_start(s_, end)) & kLowerSide) == 0) {
        end = previous_start(s_, end);
      }
    }
    if (end == i || (!lower && upper == i)) {
      return 0;
    }
    return byte(end) == '\'' ? contraction(end, true) : end;
  }

  std::string_view s_;
  size_t at_;
};

}  // namespace

namespace {

void words(std::string_view s, Span range, std::vector<Span>& pieces) {
  const auto kind = [&](size_t at) {
    const uint16_t flags = char_flags(char_at(s, at));
    return (flags & kWord) != 0 ? 1 : (flags & kSpace) != 0 ? 0 : 2;
  };
  for (size_t i = range.begin; i < range.end;) {
    const size_t begin = i;
    const int here = kind(i);
    while (i < range.end && kind(i) == here) {
      i += char_length(static_cast<unsigned char>(s[i]));
    }
    if (here != 0) {
      pieces.push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(i)});
    }
  }
}

}  // namespace

Scan scanner_for(std::string_view pattern) {
  return pattern == kGpt2Pattern     ? Scan::Gpt2
         : pattern == kLlama3Pattern ? Scan::Llama3
         : pattern == kQwen2Pattern  ? Scan::Qwen2
         : pattern == kCl100kPattern ? Scan::Cl100k
         : pattern == kO200kPattern  ? Scan::O200k
                                     : Scan::None;
}

void scan(Scan kind, std::string_view s, Span range, std::vector<Span>& pieces) {
  const auto walk = [&](auto next_end) {
    Walker walker(s, range);
    while (!walker.done()) {
      const size_t end = next_end(walker);
      pieces.push_back({static_cast<uint32_t>(walker.at()), static_cast<uint32_t>(end)});
      walker.move_to(end);
    }
  };
  switch (kind) {
    case Scan::Gpt2:
      return walk([](const Walker& w) { return w.gpt2_end(); });
    case Scan::Llama3:
      return walk([](const Walker& w) { return w.llama3_end(3); });
    case Scan::Qwen2:
      return walk([](const Walker& w) { return w.llama3_end(1); });
    case Scan::Cl100k:
      return walk([](const Walker& w) { return w.cl100k_end(); });
    case Scan::O200k:
      return walk([](const Walker& w) { return w.o200k_end(); });
    case Scan::Words:
      return words(s, range, pieces);
    case Scan::None:
      return;
  }
}

}  // namespace kamerton::text
