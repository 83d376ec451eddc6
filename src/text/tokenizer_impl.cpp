// SPDX-License-Identifier: Apache-2.0
#include "tokenizer_impl.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "json_reader.h"

namespace kamerton::text {
namespace {

const core::Json& part(const core::Json& json, std::string_view key) {
  static const core::Json null;
  const core::Json* found = core::json_find(json, key);
  return found == nullptr ? null : *found;
}

}  // namespace

TokenizerImpl::TokenizerImpl(const core::Json& json, const std::string& origin) {
  if (!json.is_object()) {
    refuse(origin, "a tokenizer file must hold one object");
  }
  digest = json.dump();
  normalizer_ = Normalizer(part(json, "normalizer"), origin);
  pre_tokenizer_ = PreTokenizer(part(json, "pre_tokenizer"), origin);
  model_ = make_model(part(json, "model"), pre_tokenizer_.byte_level(), origin);
  added_ = AddedTokens(part(json, "added_tokens"), model_->vocab(), normalizer_, origin);
  decoder_ = Decoder(part(json, "decoder"), origin);
  post_ = PostProcessor::from_json(part(json, "post_processor"), origin);
  size_ = static_cast<int64_t>(model_->vocab().tokens.size());
  for (const AddedToken& token : added_.list()) {
    size_ = std::max<int64_t>(size_, int64_t{token.id} + 1);
    added_list.emplace_back(token.id, token.content);
  }
  std::sort(added_list.begin(), added_list.end());
  for (const auto* ids : {&post_.before, &post_.after}) {
    for (const int32_t id : *ids) {
      if (id >= size_) {
        refuse(origin, "the post-processor adds an id outside the vocabulary", std::to_string(id));
      }
    }
  }
  if (decoder_.only_bytes()) {
    bytes_.resize(static_cast<size_t>(size_));
    for (int64_t id = 0; id < size_; ++id) {
      bytes_[static_cast<size_t>(id)] = byte_level_bytes(token(static_cast<int32_t>(id)));
    }
  }
}

std::string TokenizerImpl::token(int32_t id) const {
  if (const AddedToken* added = added_.by_id(id)) {
    return added->content;
  }
  const auto& tokens = model_->vocab().tokens;
  return id >= 0 && static_cast<size_t>(id) < tokens.size() ? tokens[static_cast<size_t>(id)] : "";
}

int32_t TokenizerImpl::find(std::string_view token) const {
  const int32_t added = added_.find(token);
  return added >= 0 ? added : model_->vocab().find(token);
}

bool TokenizerImpl::is_special(int32_t id) const {
  const AddedToken* added = added_.by_id(id);
  return added != nullptr && added->special;
}

struct TokenizerImpl::Pass {
  Encoding& out;
  bool offsets;
  std::vector<Span> spans = {};
};

void TokenizerImpl::add_token(Pass& pass, const AddedToken& token, Span original) const {
  pass.out.ids.push_back(token.id);
  if (pass.offsets) {
    pass.out.offsets.emplace_back(original.begin, original.end);
  }
}

void TokenizerImpl::encode_words(Pass& pass, const Words& words) const {
  const std::string_view text = words.text.text;
  for (const Span span : words.spans) {
    if (span.begin == span.end) {
      continue;
    }
    const std::string_view word = text.substr(span.begin, span.end - span.begin);
    if (!pass.offsets) {
      model_->tokenize(word, pass.out.ids, nullptr);
      continue;
    }
    pass.spans.clear();
    model_->tokenize(word, pass.out.ids, &pass.spans);
    for (const Span piece : pass.spans) {
      const size_t last =
          std::min<size_t>(span.begin + std::max(piece.end, piece.begin + 1), text.size()) - 1;
      pass.out.offsets.emplace_back(words.text.align[span.begin + piece.begin].begin,
                                    words.text.align[last].end);
    }
  }
}

void TokenizerImpl::encode_stretch(Pass& pass, AlignedText&& text, bool at_start) const {
  if (text.text.empty()) {
    return;
  }
  Words words{std::move(text), {}};
  words.spans.push_back({0, static_cast<uint32_t>(words.text.text.size())});
  pre_tokenizer_.apply(words, at_start);
  encode_words(pass, words);
}

/// A stretch without raw added tokens, at `shift` in the whole text.
void TokenizerImpl::encode_text(Pass& pass, std::string_view raw, uint32_t shift) const {
  AlignedText text(raw, shift, pass.offsets);
  normalizer_.apply(text);
  if (!added_.any_normalized()) {
    encode_stretch(pass, std::move(text), shift == 0);
    return;
  }
  for (const Stretch& stretch : added_.split_normalized(text.text)) {
    const auto [begin, end] = stretch.span;
    if (stretch.token >= 0) {
      const Span original = pass.offsets && end > begin
                                ? Span{text.align[begin].begin, text.align[end - 1].end}
                                : Span{};
      add_token(pass, added_.list()[static_cast<size_t>(stretch.token)], original);
      continue;
    }
    AlignedText between;
    between.tracked = text.tracked;
    between.copy(text, begin, end);
    encode_stretch(pass, std::move(between), shift == 0 && begin == 0);
  }
}

Encoding TokenizerImpl::encode(std::string_view given,
                               bool add_special_tokens,
                               bool with_offsets) const {
  if (given.size() >= kMaxTextBytes / 2) {
    refuse("text", "a text must be smaller than 1 GiB", std::to_string(given.size()) + " bytes");
  }
  std::string repaired;
  std::vector<uint32_t> origin;
  const bool valid = valid_prefix(given) == given.size();
  if (!valid) {
    repaired = to_valid_utf8(given, &origin);
  }
  const std::string_view text = valid ? given : std::string_view(repaired);

  Encoding out;
  if (add_special_tokens) {
    out.ids = post_.before;
  }
  const size_t first = out.ids.size();
  out.ids.reserve(first + text.size() / 4 + 8);
  Pass pass{out, with_offsets};
  for (const Stretch& stretch : added_.split_raw(text)) {
    if (stretch.token >= 0) {
      add_token(pass, added_.list()[static_cast<size_t>(stretch.token)], stretch.span);
    } else {
      const auto [begin, end] = stretch.span;
      encode_text(pass, text.substr(begin, end - begin), begin);
    }
  }
  if (with_offsets && post_.trim_offsets) {
    trim_offsets(out, text);
  }
  if (with_offsets && !valid) {
    for (auto& [begin, end] : out.offsets) {
      begin = origin[static_cast<size_t>(begin)];
      end = origin[static_cast<size_t>(end)];
    }
  }
  if (add_special_tokens) {
    out.ids.insert(out.ids.end(), post_.after.begin(), post_.after.end());
    if (with_offsets) {
      out.offsets.insert(out.offsets.begin(), first, {0, 0});
      out.offsets.resize(out.ids.size());
    }
  }
  return out;
}

namespace {

/// How many characters at an edge of a token are blanks.
int64_t blanks(const std::u32string& token, bool leading) {
  const auto is_blank = [](char32_t c) { return c == 0x120 || (char_flags(c) & kSpace) != 0; };
  int64_t count = 0;
  while (count < static_cast<int64_t>(token.size()) &&
         is_blank(token[static_cast<size_t>(
             leading ? count : static_cast<int64_t>(token.size()) - 1 - count)])) {
    ++count;
  }
  return count;
}

}  // namespace

/// Spaces at a token's edges do not count, except one that the pre-tokenizer put before the text.
/// One character of the text is taken off for each, whatever its bytes.
void TokenizerImpl::trim_offsets(Encoding& encoding, std::string_view text) const {
  const size_t first = encoding.ids.size() - encoding.offsets.size();  // ids put before the text
  for (size_t i = 0; i < encoding.offsets.size(); ++i) {
    auto& [begin, end] = encoding.offsets[i];
    const std::u32string token = to_chars(this->token(encoding.ids[first + i]));
    int64_t leading = blanks(token, true);
    if ((i == 0 || begin == 0) && post_.keeps_first_space && leading == 1) {
      leading = 0;
    }
    for (; leading > 0 && begin < end; --leading) {
      begin += static_cast<int64_t>(
          char_length(static_cast<unsigned char>(text[static_cast<size_t>(begin)])));
    }
    begin = std::min(begin, end);
    auto trimmed = static_cast<size_t>(end);
    int64_t trailing = blanks(token, false);
    for (; trailing > 0 && trimmed > 0; --trailing) {
      trimmed = previous_start(text, trimmed);
    }
    if (trailing == 0) {  // else the text before is shorter than the blanks, and nothing is cut
      end = std::max(static_cast<int64_t>(trimmed), begin);
    }
  }
}

const std::string& TokenizerImpl::bytes_of(int32_t id) const {
  static const std::string none;
  return id >= 0 && static_cast<size_t>(id) < bytes_.size() ? bytes_[static_cast<size_t>(id)]
                                                            : none;
}

std::string TokenizerImpl::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  if (decodes_bytes()) {
    std::string bytes;
    for (const int32_t id : ids) {
      if (!(skip_special_tokens && is_special(id))) {
        bytes += bytes_of(id);
      }
    }
    return valid_prefix(bytes) == bytes.size() ? bytes : to_valid_utf8(bytes);
  }
  std::vector<std::string> tokens;
  for (const int32_t id : ids) {
    const bool exists = id >= 0 && id < size_;
    if (exists && !(skip_special_tokens && is_special(id))) {
      tokens.push_back(token(id));
    }
  }
  return decoder_.join(std::move(tokens));
}

}  // namespace kamerton::text
