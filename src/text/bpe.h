// SPDX-License-Identifier: Apache-2.0
// Byte-pair encoding: the lowest-ranked neighbouring pair is merged, the leftmost first, until none
// is left.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "bpe_merge.h"
#include "finder.h"
#include "model.h"
#include "word_cache.h"

namespace kamerton::text {

class Bpe final : public Model {
 public:
  Bpe(const core::Json& json, bool byte_level, const std::string& origin);
  void tokenize(std::string_view word,
                std::vector<int32_t>& ids,
                std::vector<Span>* spans) const override;

 private:
  using Symbols = std::vector<Symbol>;

  void read_merges(const core::Json& merges, const std::string& origin);
  void add_merge(const std::string& left,
                 const std::string& right,
                 uint32_t rank,
                 const std::string& origin);
  void read_ranks(const core::Json& json, const std::string& origin);
  void add_splits(int32_t id, const std::vector<int64_t>& ranks, const std::string& origin);
  void read_symbols(const core::Json& json, const std::string& origin);
  void find_words_apart();
  void index_bytes(const std::string& origin);

  int32_t whole(std::string_view word) const;
  bool take_whole(std::string_view word, std::vector<int32_t>& ids, std::vector<Span>* spans) const;
  void merge(std::string_view word,
             std::vector<int32_t>& ids,
             std::vector<Span>* spans,
             uint32_t at) const;
  void tokenize_part(std::string_view word,
                     std::vector<int32_t>& ids,
                     std::vector<Span>* spans,
                     uint32_t at) const;
  void split_bytes(std::string_view word, Symbols& symbols) const;
  void split_chars(std::string_view word, Symbols& symbols) const;
  bool fall_back(std::string_view character, Symbols& symbols) const;
  void merge_short(Symbols& symbols) const;
  void merge_long(Symbols& symbols) const;

  MergeMap merges_;
  std::vector<uint32_t> left_ranks_;     ///< merges_.lowest_ranks_by_left()
  TokenMap raw_ids_;                     ///< byte-level: plain bytes of a token -> id
  std::array<int32_t, 256> byte_ids_{};  ///< id of a byte alone, or of its <0xXX> piece; -1: none
  std::string prefix_, suffix_;          ///< continuing_subword_prefix, end_of_word_suffix
  int32_t unk_ = -1;
  bool byte_level_ = false;
  bool byte_fallback_ = false;
  bool fuse_unk_ = false;
  bool ignore_merges_ = false;
  bool splits_at_blank_ =
      false;  ///< no merge joins a character that is not in joins_blank_ with a U+2581 after it
  std::vector<uint32_t> joins_blank_;  ///< sorted
  Finder symbols_;                     ///< strings that are one symbol, never to be merged
  bool blank_in_symbol_ = false;
  WordCache cache_;
};

}  // namespace kamerton::text
