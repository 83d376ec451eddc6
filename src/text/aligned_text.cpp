// SPDX-License-Identifier: Apache-2.0
#include "aligned_text.h"

namespace kamerton::text {

AlignedText::AlignedText(std::string_view original, uint32_t shift, bool track)
    : text(original), tracked(track) {
  if (!track) {
    return;
  }
  align.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const size_t length = char_length(static_cast<unsigned char>(text[i]));
    const uint32_t begin = shift + static_cast<uint32_t>(i);
    align.insert(align.end(), length, Span{begin, begin + static_cast<uint32_t>(length)});
    i += length;
  }
}

void AlignedText::copy(const AlignedText& in, size_t begin, size_t end) {
  text.append(in.text, begin, end - begin);
  if (tracked) {
    align.insert(align.end(),
                 in.align.begin() + static_cast<ptrdiff_t>(begin),
                 in.align.begin() + static_cast<ptrdiff_t>(end));
  }
}

void AlignedText::rewrite(const AlignedText& in, size_t at, std::span<const NewChar> chars) {
  for (const NewChar& next : chars) {
    const size_t before = text.size();
    append_char(text, next.c);
    if (!tracked) {
      continue;
    }
    Span span;
    if (next.change > 0) {
      span = at > 0 ? in.align[at - 1] : Span{};
    } else {
      span = at < in.align.size() ? in.align[at] : Span{};
      for (int k = 0; k <= -next.change && at < in.text.size(); ++k) {
        at += char_length(static_cast<unsigned char>(in.text[at]));
      }
    }
    align.insert(align.end(), text.size() - before, span);
  }
}

void AlignedText::prepend(std::string_view prefix) {
  if (text.empty()) {
    return;
  }
  text.insert(0, prefix);
  if (tracked) {
    align.insert(align.begin(), prefix.size(), align.front());
  }
}

void AlignedText::replace(const AlignedText& in, size_t end, std::string_view with) {
  text.append(with);
  if (tracked) {
    align.insert(align.end(), with.size(), end > 0 ? in.align[end - 1] : Span{});
  }
}

}  // namespace kamerton::text
