// SPDX-License-Identifier: Apache-2.0
#include "added_tokens.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "json_reader.h"

namespace kamerton::text {

namespace {

AddedToken read_token(const core::Json& json, const std::string& origin) {
  if (!json.is_object()) {
    refuse(origin, "an added token must be an object", json.dump());
  }
  AddedToken token;
  const int64_t id = core::json_int(json, "id", origin);
  token.content = core::json_string(json, "content", origin);
  if (id < 0 || id > INT32_MAX) {
    refuse(origin,
           "the id of the added token '" + token.content + "' is out of range",
           std::to_string(id));
  }
  token.id = static_cast<int32_t>(id);
  token.single_word = flag(json, "single_word", false);
  token.lstrip = flag(json, "lstrip", false);
  token.rstrip = flag(json, "rstrip", false);
  token.special = flag(json, "special", false);
  token.normalized = flag(json, "normalized", !token.special);
  return token;
}

void check_id(const AddedToken& token,
              const Vocabulary& vocab,
              size_t count,
              const std::string& origin) {
  const int32_t known = vocab.find(token.content);
  if (known >= 0 && known != token.id) {
    refuse(origin,
           "the added token '" + token.content + "' has the id " + std::to_string(token.id) +
               ", in the vocabulary it is " + std::to_string(known));
  }
  const auto id = static_cast<size_t>(token.id);
  if (known < 0 && id < vocab.tokens.size() && !vocab.tokens[id].empty()) {
    refuse(origin,
           "the added token '" + token.content + "' has the id of another token",
           vocab.tokens[id]);
  }
  if (token.id > highest_allowed_id(vocab.tokens.size() + count)) {
    refuse(origin,
           "the id of the added token '" + token.content + "' is far above the vocabulary",
           std::to_string(token.id));
  }
}

}  // namespace

AddedTokens::AddedTokens(const core::Json& json,
                         const Vocabulary& vocab,
                         const Normalizer& normalizer,
                         const std::string& origin) {
  if (json.is_null()) {
    return;
  }
  if (!json.is_array()) {
    refuse(origin, "added_tokens must be a list");
  }
  for (const core::Json& item : json) {
    AddedToken token = read_token(item, origin);
    check_id(token, vocab, json.size(), origin);
    if (!by_id_.emplace(token.id, tokens_.size()).second) {
      refuse(origin, "two added tokens share the id " + std::to_string(token.id), token.content);
    }
    tokens_.push_back(std::move(token));
  }
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const AddedToken& token = tokens_[i];
    if (token.normalized) {
      AlignedText content(token.content, 0, false);
      normalizer.apply(content);
      normalized_.insert(content.text, static_cast<int32_t>(i));
    } else {
      raw_.insert(token.content, static_cast<int32_t>(i));
    }
  }
}

const AddedToken* AddedTokens::by_id(int32_t id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &tokens_[found->second];
}

int32_t AddedTokens::find(std::string_view content) const {
  for (const AddedToken& token : tokens_) {
    if (token.content == content) {
      return token.id;
    }
  }
  return -1;
}

namespace {

bool stands_alone(std::string_view text, size_t begin, size_t end) {
  const bool word_before =
      begin > 0 && (char_flags(char_at(text, previous_start(text, begin))) & kWord) != 0;
  const bool word_after = end < text.size() && (char_flags(char_at(text, end)) & kWord) != 0;
  return !word_before && !word_after;
}

size_t spaces_before(std::string_view text, size_t begin, size_t limit) {
  while (begin > limit && (char_flags(char_at(text, previous_start(text, begin))) & kSpace) != 0) {
    begin = previous_start(text, begin);
  }
  return begin;
}

size_t spaces_after(std::string_view text, size_t end) {
  while (end < text.size() && (char_flags(char_at(text, end)) & kSpace) != 0) {
    end += char_length(static_cast<unsigned char>(text[end]));
  }
  return end;
}

}  // namespace

std::vector<Stretch> AddedTokens::split(const Finder& finder, std::string_view text) const {
  std::vector<Stretch> out;
  const auto add = [&](int32_t token, size_t begin, size_t end) {
    out.push_back({token, {static_cast<uint32_t>(begin), static_cast<uint32_t>(end)}});
  };
  size_t covered = 0;
  for (size_t i = 0; i < text.size() && !finder.empty();) {
    size_t length = 0;
    const int32_t found = finder.may_start(text[i]) ? finder.longest(text, i, length) : -1;
    if (found < 0) {
      ++i;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<size_t>(found)];
    size_t begin = i;
    size_t end = i + length;
    i = end;
    if (token.single_word && !stands_alone(text, begin, end)) {
      continue;
    }
    if (token.lstrip) {
      begin = std::max(spaces_before(text, begin, std::min(covered, begin)), covered);
    }
    if (token.rstrip) {
      end = spaces_after(text, end);
    }
    if (covered < begin) {
      add(-1, covered, begin);
    }
    add(found, begin, end);
    covered = end;
  }
  if (covered != text.size()) {
    add(-1, covered, text.size());
  }
  return out;
}

}  // namespace kamerton::text
