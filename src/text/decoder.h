// SPDX-License-Identifier: Apache-2.0
// The "decoder" of a tokenizer.json: tokens back to text.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kamerton/core/json.h"

#include "pattern.h"

namespace kamerton::text {

class SentencePieceDecoder;

class Decoder {
 public:
  Decoder() = default;
  Decoder(const core::Json& json, const std::string& origin);

  /// Joins the text of the tokens; without a decoder, with spaces between them.
  std::string join(std::vector<std::string> tokens) const;
  /// Whether it is ByteLevel and nothing else: the text is the tokens' bytes, one after the other.
  bool only_bytes() const { return steps_.size() == 1 && steps_[0].kind == Kind::ByteLevel; }

 private:
  enum class Kind {
    ByteLevel,
    ByteFallback,
    Replace,
    Fuse,
    Strip,
    Metaspace,
    WordPiece,
    Bpe,
    SentencePiece
  };
  struct Step {
    Kind kind;
    Pattern pattern = {};
    std::string content = {};
    int64_t start = 0, stop = 0;
    bool cleanup = false;
    bool drop_first = false;
    std::shared_ptr<const SentencePieceDecoder> sentencepiece = nullptr;
  };
  void add(const core::Json& json, const std::string& origin, int depth);
  static void apply(const Step& step, std::vector<std::string>& tokens);

  std::vector<Step> steps_;
  bool present_ = false;
};

/// The byte of a piece like <0x0A>, or -1.
int byte_piece(std::string_view token);
/// The bytes a token stands for in byte-level vocabularies: its characters' bytes, or its own text.
std::string byte_level_bytes(std::string_view token);

}  // namespace kamerton::text
