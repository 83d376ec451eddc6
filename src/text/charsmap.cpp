// SPDX-License-Identifier: Apache-2.0
#include "charsmap.h"

#include <cstring>

#include <utf8proc.h>

#include "base64.h"
#include "json_reader.h"

namespace kamerton::text {
namespace {

uint32_t offset_of(uint32_t unit) {
  return (unit >> 10) << ((unit & (1u << 9)) >> 6);
}

/// End of the extended grapheme cluster that starts at i.
size_t grapheme_end(std::string_view s, size_t i) {
  utf8proc_int32_t state = 0;
  uint32_t last = next_char(s, i);
  while (i < s.size()) {
    const uint32_t c = char_at(s, i);
    if (utf8proc_grapheme_break_stateful(
            static_cast<utf8proc_int32_t>(last), static_cast<utf8proc_int32_t>(c), &state)) {
      break;
    }
    last = next_char(s, i);
  }
  return i;
}

}  // namespace

Charsmap::Charsmap(std::string_view blob, const std::string& origin) {
  uint32_t bytes = 0;
  if (blob.size() >= 4) {
    std::memcpy(&bytes, blob.data(), 4);
  }
  if (blob.size() < 4 || bytes % 4 != 0 || bytes > blob.size() - 4) {
    refuse(origin, "precompiled_charsmap is cut off or damaged");
  }
  units_.resize(bytes / 4);
  if (bytes > 0) {
    std::memcpy(units_.data(), blob.data() + 4, bytes);
  }
  replacements_ = blob.substr(4 + bytes);
}

Charsmap Charsmap::from_base64(std::string_view base64, const std::string& origin) {
  const auto blob = decode_base64(base64);
  if (!blob) {
    refuse(origin, "precompiled_charsmap is not base64");
  }
  return Charsmap(*blob, origin);
}

/// Darts-clone's common prefix search; visit(length, position in replacements_).
template <class Visit>
void Charsmap::walk(std::string_view s, Visit visit) const {
  if (units_.empty()) {
    return;
  }
  size_t node = offset_of(units_[0]);
  for (size_t i = 0; i < s.size(); ++i) {
    const auto byte = static_cast<unsigned char>(s[i]);
    node ^= byte;
    if (byte == 0 || node >= units_.size() || (units_[node] & ((1u << 31) | 0xFF)) != byte) {
      return;
    }
    const uint32_t unit = units_[node];
    node ^= offset_of(unit);
    if (((unit >> 8) & 1) != 0 && node < units_.size()) {
      visit(i + 1, units_[node] & 0x7FFFFFFF);
    }
  }
}

std::pair<size_t, std::string_view> Charsmap::longest(std::string_view s) const {
  std::pair<size_t, std::string_view> best{0, {}};
  walk(s, [&](size_t length, size_t at) {
    if (at < replacements_.size()) {
      best = {length, replacements_.c_str() + at};
    }
  });
  return best;
}

std::pair<size_t, std::string_view> Charsmap::shortest(std::string_view s) const {
  std::pair<size_t, std::string_view> best{0, {}};
  walk(s, [&](size_t length, size_t at) {
    if (best.first == 0 && at < replacements_.size()) {
      best = {length, replacements_.c_str() + at};
    }
  });
  return best;
}

void Charsmap::apply(AlignedText& text) const {
  const std::string_view s = text.text;
  AlignedText out;
  out.tracked = text.tracked;
  const auto put = [&](size_t begin, size_t end, std::string_view with) {
    std::vector<NewChar> chars;
    for (const char32_t c : to_chars(to_valid_utf8(with))) {
      chars.push_back({c, chars.empty() ? 0 : 1});
    }
    int removed = -static_cast<int>(chars.size());
    for (size_t i = begin; i < end; i += char_length(static_cast<unsigned char>(s[i]))) {
      ++removed;
    }
    if (!chars.empty() && removed > 0) {
      chars.back().change -= removed;
    }
    out.rewrite(text, begin, chars);
  };
  for (size_t i = 0; i < s.size();) {
    const size_t end = grapheme_end(s, i);
    // The library does not look clusters of six bytes or more up as a whole, and takes a prefix's
    // entry for one.
    if (end - i < 6) {
      if (const auto [length, with] = shortest(s.substr(i, end - i)); length > 0) {
        put(i, end, with);
        i = end;
        continue;
      }
    }
    while (i < end) {
      const size_t after = i + char_length(static_cast<unsigned char>(s[i]));
      if (const auto [length, with] = shortest(s.substr(i, after - i)); length > 0) {
        put(i, after, with);
      } else {
        out.copy(text, i, after);
      }
      i = after;
    }
  }
  text = std::move(out);
}

}  // namespace kamerton::text
