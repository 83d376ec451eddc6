// SPDX-License-Identifier: Apache-2.0
#include "normalizer.h"

#include <nlohmann/json.hpp>

#include "charsmap.h"
#include "json_reader.h"
#include "sentencepiece_normalizer.h"

namespace kamerton::text {
namespace {

/// Rewrites the text character by character: change(c, out) appends what stands for c, nothing to
/// drop it.
template <class Change>
void map_chars(AlignedText& text, Change change) {
  const std::string& s = text.text;
  AlignedText out;
  out.tracked = text.tracked;
  out.text.reserve(s.size());
  std::u32string with;
  std::vector<NewChar> chars;
  for (size_t i = 0; i < s.size();) {
    const size_t begin = i;
    const uint32_t c = next_char(s, i);
    with.clear();
    change(c, with);
    if (with.size() == 1 && with[0] == c) {
      out.copy(text, begin, i);
      continue;
    }
    chars.clear();
    for (const char32_t w : with) {
      chars.push_back({w, chars.empty() ? 0 : 1});
    }
    out.rewrite(text, begin, chars);
  }
  text = std::move(out);
}

void replace_all(AlignedText& text, const Pattern& pattern, const std::string& content) {
  AlignedText out;
  out.tracked = text.tracked;
  uint32_t last = 0;
  pattern.each_match(text.text, [&](Span m) {
    out.copy(text, last, m.begin);
    out.replace(text, m.end, content);
    last = m.end;
  });
  if (last > 0) {
    out.copy(text, last, text.text.size());
    text = std::move(out);
  }
}

void strip(AlignedText& text, bool left, bool right) {
  const std::string& s = text.text;
  size_t begin = 0;
  size_t end = s.size();
  while (left && begin < end && (char_flags(char_at(s, begin)) & kSpace) != 0) {
    begin += char_length(static_cast<unsigned char>(s[begin]));
  }
  while (right && end > begin && (char_flags(char_at(s, previous_start(s, end))) & kSpace) != 0) {
    end = previous_start(s, end);
  }
  AlignedText out;
  out.tracked = text.tracked;
  out.copy(text, begin, end);
  text = std::move(out);
}

bool is_chinese(uint32_t c) {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
         (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
         (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

void strip_accents(AlignedText& text, uint16_t accents) {
  map_chars(text, [accents](uint32_t c, std::u32string& out) {
    if ((char_flags(c) & accents) == 0) {
      out.push_back(static_cast<char32_t>(c));
    }
  });
}

void lowercase(AlignedText& text) {
  map_chars(text, [](uint32_t c, std::u32string& out) { append_lower(out, c); });
}

void clean_text(AlignedText& text) {
  map_chars(text, [](uint32_t c, std::u32string& out) {
    const bool blank = c == '\t' || c == '\n' || c == '\r' || (char_flags(c) & kSpace) != 0;
    const bool control = c != '\t' && c != '\n' && c != '\r' && (char_flags(c) & kControl) != 0;
    if (c != 0 && c != kReplacementChar && !control) {
      out.push_back(blank ? U' ' : static_cast<char32_t>(c));
    }
  });
}

/// The Nmt normalizer's table (control characters dropped, odd spaces to plain ones).
void nmt(AlignedText& text) {
  map_chars(text, [](uint32_t c, std::u32string& out) {
    const bool dropped = (c >= 0x1 && c <= 0x8) || c == 0xB || (c >= 0xE && c <= 0x1F) ||
                         c == 0x7F || c == 0x8F || c == 0x9F;
    const bool blank = c == 0x9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 ||
                       (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                       c == 0xFEFF || c == 0xFFFD;
    if (!dropped) {
      out.push_back(blank ? U' ' : static_cast<char32_t>(c));
    }
  });
}

}  // namespace

Normalizer::Normalizer(const core::Json& json, const std::string& origin) {
  if (!json.is_null()) {
    add(json, origin, 0);
  }
}

void Normalizer::add(const core::Json& json, const std::string& origin, int depth) {
  const std::string type = type_of(json, origin);
  if (type == "Sequence") {
    const core::Json* list = core::json_find(json, "normalizers");
    if (list == nullptr || !list->is_array() || depth > 8 || list->size() > 256) {
      refuse(origin, "a normalizer Sequence must hold a list of at most 256 'normalizers'");
    }
    for (const core::Json& item : *list) {
      add(item, origin, depth + 1);
    }
    return;
  }
  constexpr std::pair<std::string_view, NormalForm> kForms[] = {{"NFC", NormalForm::NFC},
                                                                {"NFD", NormalForm::NFD},
                                                                {"NFKC", NormalForm::NFKC},
                                                                {"NFKD", NormalForm::NFKD}};
  for (const auto& [name, form] : kForms) {
    if (type == name) {
      steps_.push_back({.kind = Kind::Form, .form = form});
      return;
    }
  }
  if (type == "Prepend") {
    steps_.push_back(
        {.kind = Kind::Prepend, .content = core::json_string(json, "prepend", origin)});
  } else if (type == "Replace") {
    const core::Json* pattern = core::json_find(json, "pattern");
    steps_.push_back({.kind = Kind::Replace,
                      .pattern = Pattern::from_json(pattern ? *pattern : core::Json(), origin),
                      .content = core::json_string(json, "content", origin)});
  } else if (type == "Strip") {
    steps_.push_back({.kind = Kind::Strip,
                      .left = flag(json, "strip_left", true),
                      .right = flag(json, "strip_right", true)});
  } else if (type == "Lowercase") {
    steps_.push_back({.kind = Kind::Lowercase});
  } else if (type == "StripAccents") {
    steps_.push_back({.kind = Kind::StripAccents});
  } else if (type == "Nmt") {
    steps_.push_back({.kind = Kind::Nmt});
  } else if (type == "Precompiled") {
    auto map = Charsmap::from_base64(word(json, "precompiled_charsmap", ""), origin);
    steps_.push_back(
        {.kind = Kind::Charsmap, .charsmap = std::make_shared<Charsmap>(std::move(map))});
  } else if (type == "kamerton.SentencePiece") {
    steps_.push_back(
        {.kind = Kind::SentencePiece,
         .sentencepiece = std::make_shared<const SentencePieceNormalizer>(json, origin)});
  } else if (type == "BertNormalizer") {
    const bool lower = flag(json, "lowercase", true);
    steps_.push_back({.kind = Kind::Bert,
                      .clean = flag(json, "clean_text", true),
                      .chinese = flag(json, "handle_chinese_chars", true),
                      .strip_accents = flag(json, "strip_accents", lower),
                      .lowercase = lower});
  } else {
    refuse(origin, "this normalizer is not supported", type);
  }
}

void Normalizer::bert(const Step& step, AlignedText& text) {
  if (step.clean) {
    clean_text(text);
  }
  if (step.chinese) {
    map_chars(text, [](uint32_t c, std::u32string& out) {
      const auto ch = static_cast<char32_t>(c);
      is_chinese(c) ? out.append({U' ', ch, U' '}) : out.append(1, ch);
    });
  }
  if (step.strip_accents) {
    normalize(text, NormalForm::NFD);
    strip_accents(text, kNonspacing);
  }
  if (step.lowercase) {
    lowercase(text);
  }
}

void Normalizer::apply_step(const Step& step, AlignedText& text) {
  switch (step.kind) {
    case Kind::Form:
      return normalize(text, step.form);
    case Kind::Prepend:
      return text.prepend(step.content);
    case Kind::Replace:
      return replace_all(text, step.pattern, step.content);
    case Kind::Strip:
      return strip(text, step.left, step.right);
    case Kind::Lowercase:
      return lowercase(text);
    case Kind::StripAccents:
      return strip_accents(text, kAccent);
    case Kind::Nmt:
      return nmt(text);
    case Kind::Bert:
      return bert(step, text);
    case Kind::Charsmap:
      return step.charsmap->apply(text);
    case Kind::SentencePiece:
      return step.sentencepiece->apply(text);
  }
}

void Normalizer::apply(AlignedText& text) const {
  for (const Step& step : steps_) {
    apply_step(step, text);
    if (text.text.size() > kMaxTextBytes) {
      refuse("text", "a text grows beyond 2 GiB by normalization");
    }
  }
}

}  // namespace kamerton::text
