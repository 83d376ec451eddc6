// SPDX-License-Identifier: Apache-2.0
#include "unicode.h"

#include <algorithm>

#include <utf8proc.h>

#include "unicode_tables.h"

namespace kamerton::text {
namespace {

bool is_white_space(uint32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

bool is_ascii_symbol(uint32_t c) {
  return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) ||
         (c >= 123 && c <= 126);
}

/// The last of the sorted ranges that begins at or before c, where c lies in it; else null.
template <class Range>
const Range* range_of(const Range* ranges, size_t size, uint32_t c) {
  const Range* const found = std::upper_bound(
      ranges, ranges + size, c, [](uint32_t at, const Range& range) { return at < range.first; });
  return found == ranges || c > found[-1].last ? nullptr : found - 1;
}

uint16_t flags_of_category(int category) {
  switch (category) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LT:
      return kLetter | kWord | kUpperSide | kUpper;
    case UTF8PROC_CATEGORY_LL:
      return kLetter | kWord | kLowerSide | kLower;
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return kLetter | kWord | kUpperSide | kLowerSide;
    case UTF8PROC_CATEGORY_MN:
      return kMark | kAccent | kNonspacing | kWord | kUpperSide | kLowerSide;
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
      return kMark | kAccent | kWord | kUpperSide | kLowerSide;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
      return kNumber | kNumeric | kWord;
    case UTF8PROC_CATEGORY_NO:
      return kNumber | kNumeric;
    case UTF8PROC_CATEGORY_PC:
      return kPunctuation | kBertPunct | kWord;
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO:
      return kPunctuation | kBertPunct;
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
      return kControl;
    case UTF8PROC_CATEGORY_CN:
      return kUnassigned;
    default:
      return 0;
  }
}

uint16_t compute_flags(uint32_t c) {
  uint16_t flags = flags_of_category(general_category(c));
  if (is_white_space(c)) {
    flags |= kSpace;
  }
  if (is_ascii_symbol(c)) {
    flags |= kBertPunct;
  }
  // Join_Control, and letters that Unicode files under symbols (Other_Alphabetic).
  if (c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9) ||
      (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) ||
      (c >= 0x1F170 && c <= 0x1F189)) {
    flags |= kWord;
  }
  // Unicode 17's numbers, which expressions do not know yet.
  if ((c >= 0x11DE0 && c <= 0x11DE9) || (c >= 0x16FF4 && c <= 0x16FF6)) {
    flags |= kNumeric;
  }
  if (const OlderRange* older = range_of(kOlder, kOlderSize, c)) {
    flags = static_cast<uint16_t>((flags & ~older->minus) | older->plus);
  }
  return flags;
}

constexpr uint32_t kUnicodeTableSize = 0x20000;

const std::vector<uint16_t>& flag_table() {
  static const std::vector<uint16_t> table = [] {
    std::vector<uint16_t> flags(kUnicodeTableSize);
    for (uint32_t c = 0; c < kUnicodeTableSize; ++c) {
      flags[c] = compute_flags(c);
    }
    return flags;
  }();
  return table;
}

/// Bytes of the well-formed character at s[i], or 0; `reach` is the length of its longest
/// well-formed beginning.
size_t well_formed(std::string_view s, size_t i, size_t& reach) {
  const auto byte = [&](size_t k) { return static_cast<unsigned char>(s[k]); };
  const unsigned char lead = byte(i);
  reach = 1;
  if (lead < 0x80) {
    return 1;
  }
  if (lead < 0xC2 || lead > 0xF4) {
    return 0;
  }
  const size_t length = char_length(lead);
  for (size_t k = 1; k < length; ++k) {
    if (i + k >= s.size()) {
      return 0;
    }
    const unsigned char c = byte(i + k);
    unsigned char low = 0x80;
    unsigned char high = 0xBF;
    if (k == 1) {
      low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
      high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    }
    if (c < low || c > high) {
      return 0;
    }
    reach = k + 1;
  }
  return length;
}

}  // namespace

int general_category(uint32_t c) {
  const NewerRange* newer = range_of(kNewer, kNewerSize, c);
  return newer != nullptr ? newer->category : utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

std::string_view category_name(int category) {
  constexpr std::string_view kNames[] = {
      "Cn", "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps",
      "Pe", "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co"};
  return kNames[category];
}

bool keeps_its_place(uint32_t c) {
  return range_of(kUnordered, kUnorderedSize, c) != nullptr ||
         range_of(kNewer, kNewerSize, c) != nullptr;
}

bool is_undecomposed(uint32_t c) {
  return range_of(kUndecomposed, kUndecomposedSize, c) != nullptr ||
         range_of(kNewer, kNewerSize, c) != nullptr;
}

uint16_t char_flags(uint32_t c) {
  static const uint16_t* const table = flag_table().data();
  return c < kUnicodeTableSize ? table[c] : compute_flags(c);
}

void append_char(std::string& out, uint32_t c) {
  if (c < 0x80) {
    out.push_back(static_cast<char>(c));
  } else if (c < 0x800) {
    out.push_back(static_cast<char>(0xC0 | c >> 6));
    out.push_back(static_cast<char>(0x80 | (c & 0x3F)));
  } else if (c < 0x10000) {
    out.push_back(static_cast<char>(0xE0 | c >> 12));
    out.push_back(static_cast<char>(0x80 | (c >> 6 & 0x3F)));
    out.push_back(static_cast<char>(0x80 | (c & 0x3F)));
  } else {
    out.push_back(static_cast<char>(0xF0 | c >> 18));
    out.push_back(static_cast<char>(0x80 | (c >> 12 & 0x3F)));
    out.push_back(static_cast<char>(0x80 | (c >> 6 & 0x3F)));
    out.push_back(static_cast<char>(0x80 | (c & 0x3F)));
  }
}

std::string to_utf8(uint32_t c) {
  std::string out;
  append_char(out, c);
  return out;
}

std::u32string to_chars(std::string_view valid_utf8) {
  std::u32string out;
  out.reserve(valid_utf8.size());
  for (size_t i = 0; i < valid_utf8.size();) {
    out.push_back(next_char(valid_utf8, i));
  }
  return out;
}

size_t valid_prefix(std::string_view s) {
  size_t i = 0;
  while (i < s.size()) {
    size_t reach = 0;
    const size_t length = well_formed(s, i, reach);
    if (length == 0) {
      break;
    }
    i += length;
  }
  return i;
}

bool is_incomplete_char(std::string_view s) {
  size_t reach = 0;
  if (s.empty() || well_formed(s, 0, reach) != 0) {
    return false;
  }
  const unsigned char lead = static_cast<unsigned char>(s[0]);
  return lead >= 0xC2 && lead <= 0xF4 && reach == s.size();
}

std::string to_valid_utf8(std::string_view s, std::vector<uint32_t>* origin) {
  std::string out;
  out.reserve(s.size());
  size_t i = 0;
  while (i < s.size()) {
    size_t reach = 0;
    const size_t length = well_formed(s, i, reach);
    const size_t before = out.size();
    if (length == 0) {
      append_char(out, kReplacementChar);
    } else {
      out.append(s, i, length);
    }
    if (origin != nullptr) {
      for (size_t k = before; k < out.size(); ++k) {
        origin->push_back(static_cast<uint32_t>(length == 0 ? i : i + k - before));
      }
    }
    i += length == 0 ? reach : length;
  }
  if (origin != nullptr) {
    origin->push_back(static_cast<uint32_t>(s.size()));
  }
  return out;
}

void append_lower(std::u32string& out, uint32_t c) {
  if (c == 0x130) {  // the one character whose lower case is two, whatever the context
    out += U"i\u0307";
    return;
  }
  if (const LowerRange* newer = range_of(kLowerCase, kLowerCaseSize, c)) {
    out.push_back(static_cast<char32_t>(static_cast<int64_t>(c) + newer->delta));
    return;
  }
  out.push_back(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
}

}  // namespace kamerton::text
