// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kamerton/text/tokenizer.h"

#include "added_tokens.h"
#include "decoder.h"
#include "model.h"
#include "normalizer.h"
#include "post_processor.h"
#include "pre_tokenizer.h"

namespace kamerton::text {

class TokenizerImpl {
 public:
  TokenizerImpl(const core::Json& json, const std::string& origin);

  Encoding encode(std::string_view text, bool add_special_tokens, bool with_offsets) const;
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens) const;
  /// Bytes of a token, for decoders that only put bytes together.
  const std::string& bytes_of(int32_t id) const;
  bool decodes_bytes() const { return decoder_.only_bytes(); }
  std::string token(int32_t id) const;
  int32_t find(std::string_view token) const;
  bool is_special(int32_t id) const;
  int64_t size() const { return size_; }

  std::string digest;
  std::vector<std::pair<int32_t, std::string>> added_list;

 private:
  struct Pass;  ///< what one call of encode carries along
  void encode_text(Pass& pass, std::string_view raw, uint32_t shift) const;
  void encode_stretch(Pass& pass, AlignedText&& text, bool at_start) const;
  void encode_words(Pass& pass, const Words& words) const;
  void add_token(Pass& pass, const AddedToken& token, Span original) const;
  void trim_offsets(Encoding& encoding, std::string_view text) const;

  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  std::unique_ptr<Model> model_;
  AddedTokens added_;
  Decoder decoder_;
  PostProcessor post_;
  std::vector<std::string> bytes_;  ///< by id, where the decoder is byte-level
  int64_t size_ = 0;
};

}  // namespace kamerton::text
