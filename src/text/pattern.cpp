// SPDX-License-Identifier: Apache-2.0
#include "pattern.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "json_reader.h"

namespace kamerton::text {

Pattern Pattern::from_json(const core::Json& json, const std::string& origin) {
  if (json.is_object()) {
    if (const core::Json* literal = core::json_find(json, "String");
        literal && literal->is_string()) {
      return of_string(literal->get<std::string>());
    }
    if (const core::Json* regex = core::json_find(json, "Regex"); regex && regex->is_string()) {
      return of_regex(regex->get<std::string>(), origin);
    }
  }
  refuse(origin, "a pattern must be {\"String\": ...} or {\"Regex\": ...}", json.dump());
}

Pattern Pattern::of_string(std::string text) {
  Pattern pattern;
  pattern.literal_ = std::move(text);
  return pattern;
}

Pattern Pattern::of_regex(std::string_view regex, const std::string& origin) {
  Pattern pattern;
  pattern.regex_.emplace(regex, origin);
  pattern.scanner_ = scanner_for(regex);
  return pattern;
}

Pattern Pattern::of_words() {
  Pattern pattern;
  pattern.scanner_ = Scan::Words;
  return pattern;
}

Pattern Pattern::of_class(uint16_t flags) {
  Pattern pattern;
  pattern.flags_ = flags;
  return pattern;
}

void Pattern::each_match(std::string_view s,
                         const std::function<void(Span)>& visit,
                         bool empty_ones) const {
  if (regex_) {
    regex_->each_match(s, visit, empty_ones);
    return;
  }
  if (flags_ != 0) {
    for (size_t i = 0; i < s.size();) {
      const auto begin = static_cast<uint32_t>(i);
      if ((char_flags(next_char(s, i)) & flags_) != 0) {
        visit({begin, static_cast<uint32_t>(i)});
      }
    }
    return;
  }
  if (literal_.empty()) {
    return;
  }
  for (size_t i = s.find(literal_); i != std::string_view::npos;
       i = s.find(literal_, i + literal_.size())) {
    visit({static_cast<uint32_t>(i), static_cast<uint32_t>(i + literal_.size())});
  }
}

Behavior behavior_from(const std::string& name, const std::string& origin) {
  constexpr std::pair<std::string_view, Behavior> kNames[] = {
      {"Removed", Behavior::Removed},
      {"Isolated", Behavior::Isolated},
      {"MergedWithPrevious", Behavior::MergedWithPrevious},
      {"MergedWithNext", Behavior::MergedWithNext},
      {"Contiguous", Behavior::Contiguous}};
  for (const auto& [text, behavior] : kNames) {
    if (text == name) {
      return behavior;
    }
  }
  refuse(origin, "this split behaviour is not known", name);
}

namespace {

struct PatternPiece {
  Span span;
  bool match;
};

/// Matches and what lies between them, covering s.
std::vector<PatternPiece> cover(std::string_view s, const Pattern& pattern, bool invert) {
  std::vector<PatternPiece> all;
  uint32_t last = 0;
  pattern.each_match(
      s,
      [&](Span m) {
        if (m.begin > last) {
          all.push_back({{last, m.begin}, invert});
        }
        all.push_back({m, !invert});
        last = m.end;
      },
      true);
  if (last < s.size()) {
    all.push_back({{last, static_cast<uint32_t>(s.size())}, invert});
  }
  return all;
}

void join_words(std::vector<PatternPiece>& all, Behavior behavior) {
  std::vector<PatternPiece> out;
  bool previous_match = false;
  if (behavior == Behavior::MergedWithNext) {
    for (auto piece = all.rbegin(); piece != all.rend(); ++piece) {
      if (piece->match && !previous_match && !out.empty()) {
        out.back().span.begin = piece->span.begin;
      } else {
        out.push_back(*piece);
      }
      previous_match = piece->match;
    }
    std::reverse(out.begin(), out.end());
  } else {
    for (const PatternPiece& piece : all) {
      const bool with_last = behavior == Behavior::Contiguous ? piece.match == previous_match
                                                              : piece.match && !previous_match;
      if (with_last && !out.empty()) {
        out.back().span.end = piece.span.end;
      } else {
        out.push_back(piece);
      }
      previous_match = piece.match;
    }
  }
  all = std::move(out);
}

}  // namespace

void split(std::string_view s,
           Span range,
           const Pattern& pattern,
           Behavior behavior,
           bool invert,
           std::vector<Span>& pieces) {
  const bool keeps_matches =
      behavior == Behavior::Isolated || (behavior == Behavior::Removed && invert);
  if (pattern.scanner() != Scan::None && keeps_matches) {
    scan(pattern.scanner(), s, range, pieces);
    return;
  }
  auto all = cover(s.substr(range.begin, range.end - range.begin), pattern, invert);
  if (behavior != Behavior::Isolated && behavior != Behavior::Removed) {
    join_words(all, behavior);
  }
  for (const PatternPiece& piece : all) {
    const bool empty = piece.span.begin == piece.span.end;
    if (!empty && !(behavior == Behavior::Removed && piece.match)) {
      pieces.push_back({range.begin + piece.span.begin, range.begin + piece.span.end});
    }
  }
}

}  // namespace kamerton::text
