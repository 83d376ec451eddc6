// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <nlohmann/json.hpp>

#include "bpe.h"
#include "json_reader.h"
#include "unicode.h"

namespace kamerton::text {
namespace {

constexpr std::string_view kBpeLoadBlank = "\u2581";

Vocabulary bpe_vocab_of(const core::Json& json, const std::string& origin) {
  const core::Json* vocab = core::json_find(json, "vocab");
  if (vocab == nullptr) {
    refuse(origin, "the model has no vocab");
  }
  return Vocabulary::from_object(*vocab, origin);
}

std::string piece_of_byte(int byte) {
  constexpr char kHex[] = "0123456789ABCDEF";
  return std::string("<0x") + kHex[byte >> 4] + kHex[byte & 15] + ">";
}

}  // namespace

Bpe::Bpe(const core::Json& json, bool byte_level, const std::string& origin)
    : Model(bpe_vocab_of(json, origin)),
      prefix_(word(json, "continuing_subword_prefix", "")),
      suffix_(word(json, "end_of_word_suffix", "")),
      byte_level_(byte_level),
      byte_fallback_(flag(json, "byte_fallback", false)),
      fuse_unk_(flag(json, "fuse_unk", false)),
      ignore_merges_(flag(json, "ignore_merges", false)) {
  if (const core::Json* dropout = core::json_find(json, "dropout");
      dropout != nullptr && dropout->is_number() && dropout->get<double>() > 0) {
    refuse(origin, "BPE dropout makes ids random; it must be null", dropout->dump());
  }
  const std::string unk = word(json, "unk_token", "");
  if (!unk.empty()) {
    unk_ = vocab_.find(unk);
    if (unk_ < 0) {
      refuse(origin, "the unk_token is not in the vocabulary", unk);
    }
  }
  if (byte_level_ && (!prefix_.empty() || !suffix_.empty())) {
    refuse(origin, "a byte-level BPE with subword prefix or suffix is not supported");
  }
  const core::Json* merges = core::json_find(json, "merges");
  read_merges(merges == nullptr ? core::Json::array() : *merges, origin);
  index_bytes(origin);
  read_symbols(json, origin);
  read_ranks(json, origin);
  left_ranks_ = merges_.lowest_ranks_by_left();
  find_words_apart();
}

/// kamerton_symbols: strings that stand for themselves.
void Bpe::read_symbols(const core::Json& json, const std::string& origin) {
  const core::Json* symbols = core::json_find(json, "kamerton_symbols");
  if (symbols == nullptr) {
    return;
  }
  for (const core::Json& symbol : symbols->is_array() ? *symbols : core::Json::array({nullptr})) {
    const int32_t id = symbol.is_string() ? vocab_.find(symbol.get_ref<const std::string&>()) : -1;
    if (id < 0) {
      refuse(origin, "kamerton_symbols must be a list of tokens", symbol.dump());
    }
    symbols_.insert(symbol.get_ref<const std::string&>(), id);
    const bool blank =
        symbol.get_ref<const std::string&>().find(kBpeLoadBlank) != std::string::npos;
    blank_in_symbol_ = blank_in_symbol_ || blank;
  }
}

/// kamerton_ranks: by id, in place of merges. Two neighbours merge when they make a token together,
/// the one of lowest rank first (tiktoken, SentencePiece); -1: the token takes no part.
void Bpe::read_ranks(const core::Json& json, const std::string& origin) {
  const core::Json* list = core::json_find(json, "kamerton_ranks");
  if (list == nullptr) {
    return;
  }
  if (!list->is_array() || list->size() != vocab_.tokens.size() || merges_.size() > 0) {
    refuse(origin, "kamerton_ranks must hold one number a token, and stand in place of merges");
  }
  std::vector<int64_t> ranks;
  for (const core::Json& rank : *list) {
    if (!rank.is_number_integer() || rank.get<int64_t>() < -1 || rank.get<int64_t>() >= INT32_MAX) {
      refuse(origin, "a rank is out of range", rank.dump());
    }
    ranks.push_back(rank.get<int64_t>());
  }
  for (size_t id = 0; id < ranks.size(); ++id) {
    if (ranks[id] >= 0) {
      add_splits(static_cast<int32_t>(id), ranks, origin);
    }
  }
}

void Bpe::add_splits(int32_t id, const std::vector<int64_t>& ranks, const std::string& origin) {
  constexpr size_t kLongestToken = 1024;
  std::string bytes = vocab_.tokens[static_cast<size_t>(id)];
  if (byte_level_ && !alphabet_to_bytes(vocab_.tokens[static_cast<size_t>(id)], bytes)) {
    return;
  }
  if (bytes.size() > kLongestToken) {
    refuse(origin, "a token with a rank is longer than 1024 bytes", bytes);
  }
  for (size_t cut = 1; cut < bytes.size(); ++cut) {
    const std::string_view left = std::string_view(bytes).substr(0, cut);
    const std::string_view right = std::string_view(bytes).substr(cut);
    const int32_t a = whole(left);
    const int32_t b = a < 0 ? -1 : whole(right);
    if (b < 0 || ranks[static_cast<size_t>(a)] < 0 || ranks[static_cast<size_t>(b)] < 0) {
      continue;
    }
    merges_.insert(a, b, static_cast<uint32_t>(ranks[static_cast<size_t>(id)]), id);
    if (!byte_level_ && right.starts_with(kBpeLoadBlank)) {
      joins_blank_.push_back(char_at(left, previous_start(left, left.size())));
    }
  }
}

void Bpe::index_bytes(const std::string&) {
  for (int b = 0; b < 256; ++b) {
    const auto byte = static_cast<unsigned char>(b);
    byte_ids_[byte] = vocab_.find(byte_level_ ? to_utf8(char_of_byte(byte)) : piece_of_byte(b));
  }
  if (byte_level_) {
    raw_ids_.reserve(vocab_.tokens.size());
    std::string bytes;
    for (size_t id = 0; id < vocab_.tokens.size(); ++id) {
      if (!vocab_.tokens[id].empty() && alphabet_to_bytes(vocab_.tokens[id], bytes)) {
        raw_ids_.insert(bytes, static_cast<int32_t>(id));
      }
    }
  }
}

void Bpe::read_merges(const core::Json& merges, const std::string& origin) {
  if (!merges.is_array() || merges.size() > (size_t{1} << 26)) {
    refuse(origin, "the model's merges must be a list");
  }
  merges_.reserve(merges.size());
  uint32_t rank = 0;
  for (const core::Json& merge : merges) {
    if (merge.is_string()) {
      const auto& text = merge.get_ref<const std::string&>();
      const size_t blank = text.find(' ');
      if (blank == std::string::npos || text.find(' ', blank + 1) != std::string::npos) {
        refuse(origin, "a merge must be two tokens with one space between", text);
      }
      add_merge(text.substr(0, blank), text.substr(blank + 1), rank, origin);
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      add_merge(merge[0].get<std::string>(), merge[1].get<std::string>(), rank, origin);
    } else {
      refuse(origin, "a merge must be \"a b\" or [\"a\", \"b\"]", merge.dump());
    }
    ++rank;
  }
}

void Bpe::add_merge(const std::string& left,
                    const std::string& right,
                    uint32_t rank,
                    const std::string& origin) {
  const bool prefixed = !prefix_.empty() && right.starts_with(prefix_);
  const std::string joined = left + (prefixed ? right.substr(prefix_.size()) : right);
  const int32_t a = vocab_.find(left);
  const int32_t b = vocab_.find(right);
  const int32_t c = vocab_.find(joined);
  if (a < 0 || b < 0 || c < 0) {
    refuse(origin, "a merge names a token that is not in the vocabulary", left + " " + right);
  }
  merges_.insert(a, b, rank, c);
  if (right.starts_with(kBpeLoadBlank) && !left.empty()) {
    // A byte piece or the unknown token stands for other characters than its own.
    blank_in_symbol_ = blank_in_symbol_ || left.find("<0x") != std::string::npos || a == unk_;
    joins_blank_.push_back(char_at(left, previous_start(left, left.size())));
  }
}

/// A text without pre-tokenizer is one word. Where no merge reaches over the edge before a U+2581,
/// the parts can be encoded one by one: the same ids, but short words and a cache.
void Bpe::find_words_apart() {
  std::sort(joins_blank_.begin(), joins_blank_.end());
  joins_blank_.erase(std::unique(joins_blank_.begin(), joins_blank_.end()), joins_blank_.end());
  splits_at_blank_ = !byte_level_ && !ignore_merges_ && !blank_in_symbol_ && prefix_.empty() &&
                     suffix_.empty() && vocab_.find(kBpeLoadBlank) >= 0;
}

std::unique_ptr<Model> make_bpe(const core::Json& json,
                                bool byte_level,
                                const std::string& origin) {
  return std::make_unique<Bpe>(json, byte_level, origin);
}

}  // namespace kamerton::text
