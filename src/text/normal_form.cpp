// SPDX-License-Identifier: Apache-2.0
#include "normal_form.h"

#include <algorithm>
#include <array>

#include <utf8proc.h>

#include "unicode.h"

namespace kamerton::text {
namespace {

struct Forms {
  bool compatible;
  bool compose;
};

Forms forms_of(NormalForm form) {
  return {form == NormalForm::NFKC || form == NormalForm::NFKD,
          form == NormalForm::NFC || form == NormalForm::NFKC};
}

int combining_class(uint32_t c) {
  return keeps_its_place(c)
             ? 0
             : utf8proc_get_property(static_cast<utf8proc_int32_t>(c))->combining_class;
}

/// The character that a and b compose to, or 0.
uint32_t composed(uint32_t a, uint32_t b) {
  if (b == 0x11A7) {
    return 0;  // where the trailing jamo are counted from, none itself; utf8proc 2.8 errs
  }
  std::array<utf8proc_int32_t, 3> pair{
      static_cast<utf8proc_int32_t>(a), static_cast<utf8proc_int32_t>(b), 0};
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE);
  if (utf8proc_normalize_utf32(pair.data(), 2, options) != 1) {
    return 0;
  }
  const auto whole = static_cast<uint32_t>(pair[0]);
  return is_undecomposed(whole) ? 0 : whole;
}

std::u32string decomposed(uint32_t c, bool compatible) {
  if (is_undecomposed(c)) {
    return std::u32string(1, static_cast<char32_t>(c));
  }
  std::array<utf8proc_int32_t, 32> buffer{};
  const int options = UTF8PROC_DECOMPOSE | UTF8PROC_STABLE | (compatible ? UTF8PROC_COMPAT : 0);
  int boundary = 0;
  const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c),
                                             buffer.data(),
                                             static_cast<utf8proc_ssize_t>(buffer.size()),
                                             static_cast<utf8proc_option_t>(options),
                                             &boundary);
  if (count <= 0 || count > static_cast<utf8proc_ssize_t>(buffer.size())) {
    return std::u32string(1, static_cast<char32_t>(c));
  }
  std::u32string out;
  for (utf8proc_ssize_t i = 0; i < count; ++i) {
    out.push_back(static_cast<char32_t>(buffer[static_cast<size_t>(i)]));
  }
  return out;
}

/// Whether c stands for itself in this form, and nothing before it can change by its coming.
bool is_inert(uint32_t c, Forms forms) {
  if (c < 0x80) {
    return true;
  }
  if (combining_class(c) != 0) {
    return false;
  }
  const bool hangul = c >= 0xAC00 && c <= 0xD7A3;
  if (!forms.compose) {
    return !hangul &&
           decomposed(c, forms.compatible) == std::u32string(1, static_cast<char32_t>(c));
  }
  if ((c >= 0x1160 && c <= 0x11FF) ||
      (utf8proc_get_property(static_cast<utf8proc_int32_t>(c))->comb_index != UINT16_MAX &&
       c >= 0x900)) {
    return false;  // may be the second part of a composition
  }
  if (hangul) {
    return true;
  }
  const std::u32string parts = decomposed(c, forms.compatible);
  uint32_t whole = parts[0];
  for (size_t i = 1; i < parts.size() && whole != 0; ++i) {
    whole = composed(whole, parts[i]);
  }
  return whole == c;
}

constexpr uint32_t kNormalFormTableSize = 0x3400;

bool is_inert_cached(uint32_t c, NormalForm form) {
  if (c < 0x80) {
    return true;
  }
  if (c >= 0x3400 && c < 0xA000) {
    return true;  // CJK ideographs
  }
  static const auto tables = [] {
    std::array<std::vector<char>, 4> all;
    for (int f = 0; f < 4; ++f) {
      all[static_cast<size_t>(f)].resize(kNormalFormTableSize);
      for (uint32_t x = 0; x < kNormalFormTableSize; ++x) {
        all[static_cast<size_t>(f)][x] = is_inert(x, forms_of(static_cast<NormalForm>(f)));
      }
    }
    return all;
  }();
  return c < kNormalFormTableSize ? tables[static_cast<size_t>(form)][c] != 0
                                  : is_inert(c, forms_of(form));
}

struct OrderedChar {
  uint32_t c;
  int change;
  int ccc;
};

std::vector<OrderedChar> decompose_ordered(std::string_view s, bool compatible) {
  std::vector<OrderedChar> out;
  for (size_t i = 0; i < s.size();) {
    bool first = true;
    for (const char32_t part : decomposed(next_char(s, i), compatible)) {
      out.push_back({part, first ? 0 : 1, combining_class(part)});
      first = false;
    }
  }
  for (size_t i = 0; i < out.size();) {  // canonical order: marks sorted by class, stably
    size_t end = i;
    while (end < out.size() && out[end].ccc != 0) {
      ++end;
    }
    std::stable_sort(out.begin() + static_cast<ptrdiff_t>(i),
                     out.begin() + static_cast<ptrdiff_t>(end),
                     [](const OrderedChar& a, const OrderedChar& b) { return a.ccc < b.ccc; });
    i = end + 1;
  }
  return out;
}

/// Canonical composition, in place; a composed character adds up the changes of its parts.
void compose(std::vector<OrderedChar>& chars) {
  std::vector<OrderedChar> out;
  ptrdiff_t starter = -1;
  int last_class = -1;  // of what stands between the starter and here; -1: nothing
  for (const OrderedChar& next : chars) {
    if (starter >= 0 && last_class < next.ccc) {
      OrderedChar& base = out[static_cast<size_t>(starter)];
      if (const uint32_t whole = composed(base.c, next.c); whole != 0) {
        base.c = whole;
        base.change += next.change - 1;
        continue;
      }
    }
    out.push_back(next);
    if (next.ccc == 0) {
      starter = static_cast<ptrdiff_t>(out.size()) - 1;
      last_class = -1;
    } else {
      last_class = next.ccc;
    }
  }
  chars = std::move(out);
}

}  // namespace

void normalize(AlignedText& text, NormalForm form) {
  const Forms forms = forms_of(form);
  const std::string& s = text.text;
  AlignedText out;
  out.tracked = text.tracked;
  size_t copied = 0;      // s[0, copied) is in `out`
  size_t last_inert = 0;  // start of the inert character before i, or i
  std::vector<NewChar> chars;
  for (size_t i = 0; i < s.size();) {
    size_t after = i;
    if (is_inert_cached(next_char(s, after), form)) {
      last_inert = i;
      i = after;
      continue;
    }
    size_t end = after;
    for (size_t k = after; end < s.size() && !is_inert_cached(next_char(s, k), form);) {
      end = k;
    }
    const size_t begin = std::max(last_inert, copied);
    out.copy(text, copied, begin);
    auto ordered =
        decompose_ordered(std::string_view(s).substr(begin, end - begin), forms.compatible);
    if (forms.compose) {
      compose(ordered);
    }
    chars.clear();
    for (const OrderedChar& c : ordered) {
      chars.push_back({c.c, c.change});
    }
    out.rewrite(text, begin, chars);
    copied = last_inert = i = end;
  }
  if (copied > 0) {
    out.copy(text, copied, s.size());
    text = std::move(out);
  }
}

}  // namespace kamerton::text
