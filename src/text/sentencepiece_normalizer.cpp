// SPDX-License-Identifier: Apache-2.0
#include "sentencepiece_normalizer.h"

#include <nlohmann/json.hpp>

#include "json_reader.h"
#include "unicode.h"

namespace kamerton::text {
namespace {

constexpr std::string_view kSentencepieceNormalizerBlank = "\u2581";

}  // namespace

SentencePieceNormalizer::SentencePieceNormalizer(const core::Json& json, const std::string& origin)
    : dummy_prefix_(flag(json, "add_dummy_prefix", true)),
      remove_extra_(flag(json, "remove_extra_whitespaces", true)) {
  if (const std::string map = word(json, "charsmap", ""); !map.empty()) {
    charsmap_ = Charsmap::from_base64(map, origin);
  }
  const core::Json* symbols = core::json_find(json, "symbols");
  for (const core::Json& symbol :
       symbols != nullptr && symbols->is_array() ? *symbols : core::Json::array()) {
    if (!symbol.is_string()) {
      refuse(origin, "the normalizer's symbols must be strings", symbol.dump());
    }
    symbols_.insert(symbol.get_ref<const std::string&>(), 0);
  }
}

/// The text so far, and for each byte where in the input its character came from.
class SentencePieceNormalizer::Writer {
 public:
  Writer(const AlignedText& in) : in_(in) {
    out_.tracked = in.tracked;
    out_.text.reserve(in.text.size() + in.text.size() / 2 + 3);
  }

  void put(std::string_view text, size_t from) {
    out_.text += text;
    if (out_.tracked) {
      from_.insert(from_.end(), text.size(), static_cast<uint32_t>(from));
    }
  }
  bool ends_with_blank() const { return out_.text.ends_with(kSentencepieceNormalizerBlank); }
  /// Takes a blank off the end; returns where it came from.
  size_t drop_blank() {
    out_.text.resize(out_.text.size() - kSentencepieceNormalizerBlank.size());
    if (!out_.tracked) {
      return 0;
    }
    const size_t from = from_[out_.text.size()];
    from_.resize(out_.text.size());
    return from;
  }
  /// A character spans the input up to where the next one came from, as the library's surfaces do.
  AlignedText finish(size_t end) {
    if (out_.tracked) {
      out_.align.resize(out_.text.size());
      for (size_t i = out_.text.size(); i > 0;) {
        const size_t begin = previous_start(out_.text, i);
        const Span span{original(from_[begin]), std::max(original(from_[begin]), original(end))};
        std::fill(out_.align.begin() + static_cast<ptrdiff_t>(begin),
                  out_.align.begin() + static_cast<ptrdiff_t>(i),
                  span);
        end = from_[begin];
        i = begin;
      }
    }
    return std::move(out_);
  }

 private:
  uint32_t original(size_t at) const {
    return at < in_.align.size() ? in_.align[at].begin
           : in_.align.empty()   ? 0
                                 : in_.align.back().end;
  }

  const AlignedText& in_;
  AlignedText out_;
  std::vector<uint32_t> from_;
};

std::pair<size_t, std::string_view> SentencePieceNormalizer::next(std::string_view text) const {
  if (symbols_.may_start(text[0])) {
    size_t length = 0;
    if (symbols_.longest(text, 0, length) >= 0) {
      return {length, text.substr(0, length)};
    }
  }
  if (charsmap_) {
    if (const auto found = charsmap_->longest(text); found.first > 0) {
      return found;
    }
  }
  const size_t length = char_length(static_cast<unsigned char>(text[0]));
  return {length, text.substr(0, length)};
}

void SentencePieceNormalizer::apply(AlignedText& text) const {
  const std::string_view s = text.text;
  size_t at = 0;
  while (remove_extra_ && at < s.size()) {
    const auto [taken, with] = next(s.substr(at));
    if (with != " ") {
      break;
    }
    at += taken;
  }
  Writer out(text);
  if (at < s.size() && dummy_prefix_) {
    out.put(kSentencepieceNormalizerBlank, at);
  }
  bool after_blank = remove_extra_;
  while (at < s.size()) {
    auto [taken, with] = next(s.substr(at));
    while (after_blank && with.starts_with(' ')) {
      with.remove_prefix(1);
    }
    after_blank = with.empty() ? after_blank : with.ends_with(' ');
    for (size_t i = 0; i < with.size();) {
      const size_t blank = std::min(with.find(' ', i), with.size());
      out.put(with.substr(i, blank - i), at);
      if (blank < with.size()) {
        out.put(kSentencepieceNormalizerBlank, at);
      }
      i = blank + 1;
    }
    at += taken;
    after_blank = after_blank && remove_extra_;
  }
  size_t end = at;
  while (remove_extra_ && out.ends_with_blank()) {
    end = out.drop_blank();
  }
  text = out.finish(end);
}

}  // namespace kamerton::text
