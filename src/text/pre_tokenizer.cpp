// SPDX-License-Identifier: Apache-2.0
#include "pre_tokenizer.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "json_reader.h"

namespace kamerton::text {

PreTokenizer::PreTokenizer(const core::Json& json, const std::string& origin) {
  if (!json.is_null()) {
    add(json, origin, 0);
  }
}

void PreTokenizer::add_split(Pattern pattern, Behavior behavior, bool invert) {
  steps_.push_back(
      {.kind = Kind::Split, .pattern = std::move(pattern), .behavior = behavior, .invert = invert});
}

void PreTokenizer::add_byte_level(const core::Json& json, const std::string& origin) {
  if (flag(json, "add_prefix_space", true)) {
    steps_.push_back({.kind = Kind::Space});
  }
  if (flag(json, "use_regex", true)) {
    add_split(Pattern::of_regex(kGpt2Pattern, origin), Behavior::Isolated);
  }
  byte_level_ = true;
}

void PreTokenizer::add_metaspace(const core::Json& json, const std::string& origin) {
  const bool legacy_prefix = flag(json, "add_prefix_space", true);
  const std::string scheme = word(json, "prepend_scheme", legacy_prefix ? "always" : "never");
  if (scheme != "always" && scheme != "first" && scheme != "never") {
    refuse(origin, "Metaspace's prepend_scheme must be always, first or never", scheme);
  }
  const std::string replacement = word(json, "replacement", "\u2581");
  if (to_chars(replacement).size() != 1) {
    refuse(origin, "Metaspace's replacement must be one character", replacement);
  }
  steps_.push_back({.kind = Kind::Metaspace,
                    .pattern = Pattern::of_string(replacement),
                    .replacement = replacement,
                    .prepend = scheme == "always"  ? Prepend::Always
                               : scheme == "first" ? Prepend::First
                                                   : Prepend::Never,
                    .split = flag(json, "split", true)});
}

void PreTokenizer::add(const core::Json& json, const std::string& origin, int depth) {
  const std::string type = type_of(json, origin);
  if (byte_level_) {
    refuse(origin, "ByteLevel must be the last pre-tokenizer", type);
  }
  if (type == "Sequence") {
    const core::Json* list = core::json_find(json, "pretokenizers");
    if (list == nullptr || !list->is_array() || depth > 8 || list->size() > 256) {
      refuse(origin, "a pre-tokenizer Sequence must hold a list of at most 256 'pretokenizers'");
    }
    for (const core::Json& item : *list) {
      add(item, origin, depth + 1);
    }
  } else if (type == "ByteLevel") {
    add_byte_level(json, origin);
  } else if (type == "Metaspace") {
    add_metaspace(json, origin);
  } else if (type == "Split") {
    const core::Json* pattern = core::json_find(json, "pattern");
    add_split(Pattern::from_json(pattern ? *pattern : core::Json(), origin),
              behavior_from(core::json_string(json, "behavior", origin), origin),
              flag(json, "invert", false));
  } else if (type == "Digits") {
    const bool single = flag(json, "individual_digits", false);
    add_split(Pattern::of_class(kNumeric), single ? Behavior::Isolated : Behavior::Contiguous);
  } else if (type == "Punctuation") {
    add_split(Pattern::of_class(kBertPunct),
              behavior_from(word(json, "behavior", "Isolated"), origin));
  } else if (type == "Whitespace") {
    add_split(Pattern::of_words(), Behavior::Removed, true);
  } else if (type == "WhitespaceSplit") {
    add_split(Pattern::of_class(kSpace), Behavior::Removed);
  } else if (type == "BertPreTokenizer") {
    add_split(Pattern::of_class(kSpace), Behavior::Removed);
    add_split(Pattern::of_class(kBertPunct), Behavior::Isolated);
  } else if (type == "CharDelimiterSplit") {
    add_split(Pattern::of_string(core::json_string(json, "delimiter", origin)), Behavior::Removed);
  } else {
    refuse(origin, "this pre-tokenizer is not supported", type);
  }
}

void PreTokenizer::apply_split(const Step& step, Words& words) {
  std::vector<Span> pieces;
  pieces.reserve(words.text.text.size() / 4 + 1);
  for (const Span span : words.spans) {
    split(words.text.text, span, step.pattern, step.behavior, step.invert, pieces);
  }
  words.spans = std::move(pieces);
}

/// ByteLevel's add_prefix_space: on every word that does not begin with a space.
void PreTokenizer::apply_space(Words& words) {
  const AlignedText& in = words.text;
  AlignedText out;
  out.tracked = in.tracked;
  for (Span& span : words.spans) {
    const auto begin = static_cast<uint32_t>(out.text.size());
    if (in.text[span.begin] != ' ') {
      const NewChar space{' ', 0};
      out.rewrite(in, span.begin, {&space, 1});
    }
    out.copy(in, span.begin, span.end);
    span = {begin, static_cast<uint32_t>(out.text.size())};
  }
  words.text = std::move(out);
}

void PreTokenizer::apply_metaspace(const Step& step, Words& words, bool at_start) {
  const AlignedText& in = words.text;
  AlignedText out;
  out.tracked = in.tracked;
  out.text.reserve(in.text.size() + in.text.size() / 3 + 3);
  bool first = true;
  for (Span& span : words.spans) {
    const auto begin = static_cast<uint32_t>(out.text.size());
    const std::string_view s = std::string_view(in.text).substr(span.begin, span.end - span.begin);
    const bool starts = s.starts_with(step.replacement) || s.starts_with(' ');
    const bool wanted = step.prepend == Prepend::Always ||
                        (step.prepend == Prepend::First && first && at_start && span.begin == 0);
    first = false;
    if (wanted && !starts) {
      out.text += step.replacement;
      if (out.tracked) {
        out.align.insert(out.align.end(), step.replacement.size(), in.align[span.begin]);
      }
    }
    size_t from = span.begin;
    const std::string_view until = std::string_view(in.text).substr(0, span.end);
    for (size_t i = until.find(' ', from); i != std::string_view::npos; i = until.find(' ', from)) {
      out.copy(in, from, i);
      out.replace(in, i + 1, step.replacement);
      from = i + 1;
    }
    out.copy(in, from, span.end);
    span = {begin, static_cast<uint32_t>(out.text.size())};
  }
  words.text = std::move(out);
  if (step.split) {
    Step cut = step;
    cut.behavior = Behavior::MergedWithNext;
    apply_split(cut, words);
  }
}

void PreTokenizer::apply(Words& words, bool at_start) const {
  for (const Step& step : steps_) {
    std::erase_if(words.spans, [](Span s) { return s.begin == s.end; });
    switch (step.kind) {
      case Kind::Split:
        apply_split(step, words);
        break;
      case Kind::Space:
        apply_space(words);
        break;
      case Kind::Metaspace:
        apply_metaspace(step, words, at_start);
        break;
    }
  }
}

}  // namespace kamerton::text
