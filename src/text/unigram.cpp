// SPDX-License-Identifier: Apache-2.0
// Unigram language model: the split of a word with the highest sum of scores (Viterbi).
#include <algorithm>
#include <array>
#include <limits>

#include <nlohmann/json.hpp>

#include "json_reader.h"
#include "model.h"
#include "sentencepiece.h"
#include "unicode.h"
#include "word_cache.h"

namespace kamerton::text {
namespace {

constexpr double kUnknownPenalty = 10.0;

struct UnigramPiece {
  std::string text;
  double score;
};

std::vector<UnigramPiece> read_pieces(const core::Json& json, const std::string& origin) {
  const core::Json* vocab = core::json_find(json, "vocab");
  if (vocab == nullptr || !vocab->is_array()) {
    refuse(origin, "a Unigram vocab must be a list of [piece, score]");
  }
  std::vector<UnigramPiece> pieces;
  for (const core::Json& entry : *vocab) {
    if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number()) {
      refuse(origin, "a Unigram vocab entry must be [piece, score]", entry.dump());
    }
    pieces.push_back({entry[0].get<std::string>(), entry[1].get<double>()});
  }
  return pieces;
}

Vocabulary vocab_of(const std::vector<UnigramPiece>& pieces, const std::string& origin) {
  std::vector<std::string> texts;
  for (const UnigramPiece& piece : pieces) {
    texts.push_back(piece.text);
  }
  return Vocabulary::from_list(texts, origin);
}

/// kamerton_types: by id, SentencePiece's types; all pieces are normal ones where it is absent.
std::vector<PieceType> read_types(const core::Json& json, size_t size, const std::string& origin) {
  std::vector<PieceType> types(size, PieceType::Normal);
  const core::Json* list = core::json_find(json, "kamerton_types");
  if (list == nullptr) {
    return types;
  }
  if (!list->is_array() || list->size() != size) {
    refuse(origin, "kamerton_types must hold one number a piece");
  }
  for (size_t id = 0; id < size; ++id) {
    const core::Json& type = (*list)[id];
    if (!type.is_number_integer() || type.get<int64_t>() < 1 || type.get<int64_t>() > 6) {
      refuse(origin, "a piece's type is not known", type.dump());
    }
    types[id] = static_cast<PieceType>(type.get<int>());
  }
  return types;
}

/// A trie over bytes; children of a node are a hash of (node, byte).
class Trie {
 public:
  void insert(std::string_view text, int32_t id) {
    uint32_t node = 0;
    for (const char c : text) {
      const int32_t next = step(node, c);
      if (next < 0) {
        const auto fresh = static_cast<uint32_t>(ids_.size());
        edges_.insert(static_cast<int32_t>(node),
                      static_cast<unsigned char>(c),
                      0,
                      static_cast<int32_t>(fresh));
        ids_.push_back(-1);
        node = fresh;
      } else {
        node = static_cast<uint32_t>(next);
      }
    }
    ids_[node] = id;
  }
  int32_t step(uint32_t node, char c) const {
    const uint64_t found = edges_.find(static_cast<int32_t>(node), static_cast<unsigned char>(c));
    return found == MergeMap::kNone ? -1 : static_cast<int32_t>(found);
  }
  int32_t id(int32_t node) const { return ids_[static_cast<size_t>(node)]; }

 private:
  MergeMap edges_;
  std::vector<int32_t> ids_{-1};
};

class Unigram final : public Model {
 public:
  Unigram(const core::Json& json, std::vector<UnigramPiece> pieces, const std::string& origin)
      : Model(vocab_of(pieces, origin)), byte_fallback_(flag(json, "byte_fallback", false)) {
    const std::vector<PieceType> types = read_types(json, pieces.size(), origin);
    sentencepiece_ = core::json_find(json, "kamerton_types") != nullptr;
    double lowest = std::numeric_limits<double>::infinity();
    double highest = -std::numeric_limits<double>::infinity();
    for (size_t id = 0; id < pieces.size(); ++id) {
      if (types[id] == PieceType::Normal) {
        lowest = std::min(lowest, pieces[id].score);
        highest = std::max(highest, pieces[id].score);
      }
    }
    for (size_t id = 0; id < pieces.size(); ++id) {
      const std::string& text = pieces[id].text;
      const bool defined = types[id] == PieceType::UserDefined;
      scores_.push_back(defined ? static_cast<double>(text.size()) * highest - 0.1
                                : pieces[id].score);
      if (!text.empty() && (defined || types[id] == PieceType::Normal)) {
        trie_.insert(text, vocab_.find(text));
      }
    }
    unknown_score_ = rounded(lowest - kUnknownPenalty);
    read_unknown(json, pieces.size(), origin);
    for (int b = 0; b < 256; ++b) {
      constexpr char kHex[] = "0123456789ABCDEF";
      bytes_[static_cast<size_t>(b)] =
          vocab_.find(std::string("<0x") + kHex[b >> 4] + kHex[b & 15] + ">");
    }
  }

  void tokenize(std::string_view word,
                std::vector<int32_t>& ids,
                std::vector<Span>* spans) const override {
    const bool cacheable = spans == nullptr && word.size() <= WordCache::kLongestWord;
    const uint64_t hash = cacheable ? WordCache::hash(word) : 0;
    if (cacheable && cache_.find(hash, word, ids)) {
      return;
    }
    const size_t from = ids.size();
    segment(word, ids, spans);
    if (cacheable) {
      cache_.put(hash, word, ids, from);
    }
  }

 private:
  struct Node {
    double score;
    uint32_t begin;
    int32_t id;  ///< -2: not reached
  };
  struct Cut {
    Span span;
    int32_t id;
  };

  void read_unknown(const core::Json& json, size_t size, const std::string& origin) {
    if (core::json_find(json, "unk_id") == nullptr) {
      return;
    }
    const int64_t id = core::json_int(json, "unk_id", origin);
    if (id < 0 || id >= static_cast<int64_t>(size)) {
      refuse(origin, "unk_id is outside the vocabulary", std::to_string(id));
    }
    unk_ = static_cast<int32_t>(id);
  }

  /// The sentencepiece library adds scores up in single precision.
  double rounded(double score) const {
    return sentencepiece_ ? static_cast<double>(static_cast<float>(score)) : score;
  }

  void segment(std::string_view word, std::vector<int32_t>& ids, std::vector<Span>* spans) const {
    thread_local std::vector<Node> best;
    thread_local std::vector<Cut> cuts;
    viterbi(word, best);
    cuts.clear();
    for (size_t end = word.size(); end > 0;) {
      const Node& node = best[end];
      if (node.id == unk_ && !cuts.empty() && cuts.back().id == unk_) {
        cuts.back().span.begin = node.begin;  // neighbouring unknown characters are one piece
      } else {
        cuts.push_back({{node.begin, static_cast<uint32_t>(end)}, node.id});
      }
      end = node.begin;
    }
    for (auto cut = cuts.rbegin(); cut != cuts.rend(); ++cut) {
      emit(word, *cut, ids, spans);
    }
    if (best.capacity() > (1u << 20)) {
      std::vector<Node>().swap(best);
      std::vector<Cut>().swap(cuts);
    }
  }

  void reach(Node& node, double score, size_t begin, int32_t id) const {
    score = rounded(score);
    if (node.id == -2 || score > node.score) {
      node = {score, static_cast<uint32_t>(begin), id};
    }
  }

  void viterbi(std::string_view word, std::vector<Node>& best) const {
    best.assign(word.size() + 1, {0, 0, -2});
    for (size_t begin = 0; begin < word.size();) {
      const double here = best[begin].score;
      const size_t length = char_length(static_cast<unsigned char>(word[begin]));
      bool single = false;
      int32_t node = 0;
      for (size_t end = begin; end < word.size();) {
        node = trie_.step(static_cast<uint32_t>(node), word[end++]);
        if (node < 0) {
          break;
        }
        if (const int32_t id = trie_.id(node); id >= 0) {
          reach(best[end], scores_[static_cast<size_t>(id)] + here, begin, id);
          single = single || end - begin == length;
        }
      }
      if (!single) {
        if (unk_ < 0) {
          refuse("text", "a character is not in the vocabulary and there is no unknown token");
        }
        reach(best[begin + length], unknown_score_ + here, begin, unk_);
      }
      begin += length;
    }
  }

  void emit(std::string_view word,
            const Cut& cut,
            std::vector<int32_t>& ids,
            std::vector<Span>* spans) const {
    const std::string_view piece = word.substr(cut.span.begin, cut.span.end - cut.span.begin);
    const size_t from = ids.size();
    // The reference library looks unknown stretches up again, where they may be a piece after all.
    const int32_t id = cut.id != unk_ ? cut.id : sentencepiece_ ? -1 : vocab_.find(piece);
    if (id >= 0) {
      ids.push_back(id);
    } else if (byte_fallback_ && std::all_of(piece.begin(), piece.end(), [&](char c) {
                 return bytes_[static_cast<unsigned char>(c)] >= 0;
               })) {
      for (const char c : piece) {
        ids.push_back(bytes_[static_cast<unsigned char>(c)]);
      }
    } else {
      ids.push_back(unk_);
    }
    if (spans != nullptr) {
      spans->insert(spans->end(), ids.size() - from, cut.span);
    }
  }

  Trie trie_;
  std::vector<double> scores_;
  std::array<int32_t, 256> bytes_{};
  double unknown_score_ = 0;
  int32_t unk_ = -1;
  bool byte_fallback_;
  bool sentencepiece_ = false;  ///< as the sentencepiece library, not as tokenizers' Unigram
  WordCache cache_;
};

}  // namespace

std::unique_ptr<Model> make_unigram(const core::Json& json, const std::string& origin) {
  auto pieces = read_pieces(json, origin);
  return std::make_unique<Unigram>(json, std::move(pieces), origin);
}

}  // namespace kamerton::text
