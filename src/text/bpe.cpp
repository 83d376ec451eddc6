// SPDX-License-Identifier: Apache-2.0
#include "bpe.h"

#include <algorithm>
#include <memory>

#include "unicode.h"

namespace kamerton::text {
namespace {

constexpr size_t kShortWord = 40;  // symbols; above, heaps find the next merge

}  // namespace

int32_t Bpe::whole(std::string_view word) const {
  return byte_level_ ? raw_ids_.find(word) : vocab_.find(word);
}

void Bpe::tokenize(std::string_view word,
                   std::vector<int32_t>& ids,
                   std::vector<Span>* spans) const {
  if (!splits_at_blank_) {
    tokenize_part(word, ids, spans, 0);
    return;
  }
  size_t begin = 0;
  for (size_t i = word.find("\u2581", 1); i != std::string_view::npos;
       i = word.find("\u2581", i + 3)) {
    const uint32_t before = char_at(word, previous_start(word, i));
    if (!std::binary_search(joins_blank_.begin(), joins_blank_.end(), before)) {
      tokenize_part(word.substr(begin, i - begin), ids, spans, static_cast<uint32_t>(begin));
      begin = i;
    }
  }
  tokenize_part(word.substr(begin), ids, spans, static_cast<uint32_t>(begin));
}

/// ignore_merges: a word that is a token stands for itself.
bool Bpe::take_whole(std::string_view word,
                     std::vector<int32_t>& ids,
                     std::vector<Span>* spans) const {
  const int32_t id = ignore_merges_ ? whole(word) : -1;
  if (id < 0) {
    return false;
  }
  ids.push_back(id);
  if (spans != nullptr) {
    spans->push_back({0, static_cast<uint32_t>(word.size())});
  }
  return true;
}

void Bpe::tokenize_part(std::string_view word,
                        std::vector<int32_t>& ids,
                        std::vector<Span>* spans,
                        uint32_t at) const {
  const bool cacheable = spans == nullptr && word.size() <= WordCache::kLongestWord;
  const uint64_t hash = cacheable ? WordCache::hash(word) : 0;
  if (cacheable && cache_.find(hash, word, ids)) {
    return;
  }
  const size_t from = ids.size();
  if (!take_whole(word, ids, spans)) {
    merge(word, ids, spans, at);
  }
  if (cacheable) {
    cache_.put(hash, word, ids, from);
  }
}

void Bpe::merge(std::string_view word,
                std::vector<int32_t>& ids,
                std::vector<Span>* spans,
                uint32_t at) const {
  thread_local Symbols symbols;
  symbols.clear();
  byte_level_ ? split_bytes(word, symbols) : split_chars(word, symbols);
  symbols.size() <= kShortWord ? merge_short(symbols) : merge_long(symbols);
  for (const Symbol& symbol : symbols) {
    ids.push_back(symbol.id);
    if (spans != nullptr) {
      spans->push_back({at, at + symbol.length});
      at += symbol.length;
    }
  }
  if (symbols.capacity() > (1u << 20)) {
    Symbols().swap(symbols);
  }
}

void Bpe::split_bytes(std::string_view word, Symbols& symbols) const {
  for (const char c : word) {
    int32_t id = byte_ids_[static_cast<unsigned char>(c)];
    if (id < 0) {
      id = unk_;
      if (id < 0) {
        continue;  // dropped, as the reference library does without an unknown token
      }
      if (fuse_unk_ && !symbols.empty() && symbols.back().id == unk_) {
        ++symbols.back().length;
        continue;
      }
    }
    symbols.push_back({id, 1});
  }
}

bool Bpe::fall_back(std::string_view character, Symbols& symbols) const {
  if (!byte_fallback_) {
    return false;
  }
  for (const char c : character) {
    if (byte_ids_[static_cast<unsigned char>(c)] < 0) {
      return false;
    }
  }
  for (const char c : character) {
    symbols.push_back({byte_ids_[static_cast<unsigned char>(c)], 1});
  }
  return true;
}

void Bpe::split_chars(std::string_view word, Symbols& symbols) const {
  uint32_t unknown = 0;  // bytes of unknown characters not yet put out
  std::string affixed;
  for (size_t i = 0; i < word.size();) {
    size_t length = char_length(static_cast<unsigned char>(word[i]));
    if (symbols_.may_start(word[i])) {
      symbols_.longest(word, i, length);
    }
    std::string_view character = word.substr(i, length);
    if (!prefix_.empty() || !suffix_.empty()) {
      affixed = (i > 0 ? prefix_ : "") + std::string(character) +
                (i + length == word.size() ? suffix_ : "");
      character = affixed;
    }
    i += length;
    if (const int32_t id = vocab_.find(character); id >= 0) {
      if (unknown > 0) {
        symbols.push_back({unk_, unknown});
        unknown = 0;
      }
      symbols.push_back({id, static_cast<uint32_t>(length)});
    } else if (!fall_back(character, symbols) && unk_ >= 0) {
      if (unknown > 0 && !fuse_unk_) {
        symbols.push_back({unk_, unknown});
        unknown = 0;
      }
      unknown += static_cast<uint32_t>(length);
    }
  }
  if (unknown > 0) {
    symbols.push_back({unk_, unknown});
  }
}

/// Looks at all pairs for each merge: fastest for short words.
void Bpe::merge_short(Symbols& symbols) const {
  size_t n = symbols.size();
  uint64_t pairs[kShortWord];
  for (size_t i = 0; i + 1 < n; ++i) {
    pairs[i] = merges_.find(symbols[i].id, symbols[i + 1].id);
  }
  while (n > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; ++i) {
      if (rank_of(pairs[i]) < rank_of(pairs[best])) {
        best = i;
      }
    }
    if (pairs[best] == MergeMap::kNone) {
      break;
    }
    symbols[best].id = whole_of(pairs[best]);
    symbols[best].length += symbols[best + 1].length;
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(best) + 1);
    std::copy(pairs + best + 1, pairs + n - 1, pairs + best);
    --n;
    if (best + 1 < n) {
      pairs[best] = merges_.find(symbols[best].id, symbols[best + 1].id);
    }
    if (best > 0) {
      pairs[best - 1] = merges_.find(symbols[best - 1].id, symbols[best].id);
    }
  }
}

/// Windows of a heap of candidates: the row's length times a small logarithm.
void Bpe::merge_long(Symbols& symbols) const {
  thread_local LongMerge::Scratch scratch;
  LongMerge(merges_, left_ranks_, scratch).run(symbols);
}

}  // namespace kamerton::text
