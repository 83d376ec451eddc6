// SPDX-License-Identifier: Apache-2.0
// The normalization that SentencePiece's library does before its models see a text.
#pragma once

#include <optional>
#include <string>

#include "kamerton/core/json.h"

#include "aligned_text.h"
#include "charsmap.h"
#include "finder.h"

namespace kamerton::text {

class SentencePieceNormalizer {
 public:
  /// {"charsmap": base64, "add_dummy_prefix", "remove_extra_whitespaces", "symbols": [...]}.
  SentencePieceNormalizer(const core::Json& json, const std::string& origin);

  /// Longest entries of the table first; symbols stay as they are; blanks become U+2581, runs of
  /// them one where extra ones are removed.
  void apply(AlignedText& text) const;

 private:
  class Writer;
  /// What stands for the text's beginning: bytes taken, and what they become.
  std::pair<size_t, std::string_view> next(std::string_view text) const;

  std::optional<Charsmap> charsmap_;
  Finder symbols_;
  bool dummy_prefix_ = true;
  bool remove_extra_ = true;
};

}  // namespace kamerton::text
