// SPDX-License-Identifier: Apache-2.0
// The "normalizer" of a tokenizer.json.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kamerton/core/json.h"

#include "aligned_text.h"
#include "normal_form.h"
#include "pattern.h"

namespace kamerton::text {

class Charsmap;
class SentencePieceNormalizer;

/// One or more steps, applied in order.
class Normalizer {
 public:
  Normalizer() = default;
  /// `json` may be null: no normalization.
  Normalizer(const core::Json& json, const std::string& origin);

  void apply(AlignedText& text) const;
  bool empty() const { return steps_.empty(); }

 private:
  enum class Kind {
    Form,
    Prepend,
    Replace,
    Strip,
    Lowercase,
    StripAccents,
    Bert,
    Nmt,
    Charsmap,
    SentencePiece
  };
  struct Step {
    Kind kind;
    NormalForm form = NormalForm::NFC;
    Pattern pattern = {};
    std::string content = {};
    bool left = false, right = false;
    bool clean = false, chinese = false, strip_accents = false, lowercase = false;
    std::shared_ptr<const Charsmap> charsmap = nullptr;
    std::shared_ptr<const SentencePieceNormalizer> sentencepiece = nullptr;
  };
  void add(const core::Json& json, const std::string& origin, int depth);
  static void apply_step(const Step& step, AlignedText& text);
  static void bert(const Step& step, AlignedText& text);

  std::vector<Step> steps_;
};

}  // namespace kamerton::text
