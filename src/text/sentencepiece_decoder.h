// SPDX-License-Identifier: Apache-2.0
// Pieces back to text as the sentencepiece library does it.
#pragma once

#include <string>
#include <unordered_set>
#include <vector>

#include "kamerton/core/json.h"

namespace kamerton::text {

class SentencePieceDecoder {
 public:
  /// {"hidden": [...], "unknown", "unk_surface", "strip_first", "strip_all"}.
  SentencePieceDecoder(const core::Json& json, const std::string& origin);
  std::string join(const std::vector<std::string>& pieces) const;

 private:
  std::unordered_set<std::string> hidden_;  ///< control pieces
  std::string unknown_, unk_surface_;
  bool strip_first_ = true;  ///< the blank before the text was added, not read
  bool strip_all_ = true;    ///< and there can be several at a text's start
};

}  // namespace kamerton::text
