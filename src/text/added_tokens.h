// SPDX-License-Identifier: Apache-2.0
// Tokens that are found in the text before anything else looks at it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "kamerton/core/json.h"

#include "aligned_text.h"
#include "finder.h"
#include "normalizer.h"
#include "vocabulary.h"

namespace kamerton::text {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool single_word = false, lstrip = false, rstrip = false, normalized = true, special = false;
};

/// A stretch of a text: an added token, or text between them (token -1).
struct Stretch {
  int32_t token;  ///< index into the list of tokens
  Span span;
};

class AddedTokens {
 public:
  AddedTokens() = default;
  /// `json` may be null. Ids that contradict the vocabulary or each other are refused.
  AddedTokens(const core::Json& json,
              const Vocabulary& vocab,
              const Normalizer& normalizer,
              const std::string& origin);

  /// Stretches of the raw text: tokens that are matched before normalization.
  std::vector<Stretch> split_raw(std::string_view text) const { return split(raw_, text); }
  /// Stretches of a normalized text: tokens that are matched after normalization.
  std::vector<Stretch> split_normalized(std::string_view text) const {
    return split(normalized_, text);
  }
  bool any_normalized() const { return !normalized_.empty(); }

  const std::vector<AddedToken>& list() const { return tokens_; }
  /// The added token of an id, or null.
  const AddedToken* by_id(int32_t id) const;
  int32_t find(std::string_view content) const;

 private:
  std::vector<Stretch> split(const Finder& finder, std::string_view text) const;
  std::vector<AddedToken> tokens_;
  std::unordered_map<int32_t, size_t> by_id_;
  Finder raw_, normalized_;
};

}  // namespace kamerton::text
