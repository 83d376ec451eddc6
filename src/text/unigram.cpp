// SPDX-License-Identifier: Apache-2.0
// Unigram language model: the split of a word with the highest sum of scores (Viterbi).
#include <algorithm>
#include <array>
#include <limits>

#include <nlohmann/json.hpp>

#include "json_reader.h"
#include "model.h"
#include "unicode.h"

namespace kamerton::text {
namespace {

constexpr double kUnknownPenalty = 10.0;

struct Piece {
  std::string text;
  double score;
};

std::vector<Piece> read_pieces(const core::Json& json, const std::string& origin) {
  const core::Json* vocab = core::json_find(json, "vocab");
  if (vocab == nullptr || !vocab->is_array()) {
    refuse(origin, "a Unigram vocab must be a list of [piece, score]");
  }
  std::vector<Piece> pieces;
  for (const core::Json& entry : *vocab) {
    if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number()) {
      refuse(origin, "a Unigram vocab entry must be [piece, score]", entry.dump());
    }
    pieces.push_back({entry[0].get<std::string>(), entry[1].get<double>()});
  }
  return pieces;
}

Vocabulary vocab_of(const std::vector<Piece>& pieces, const std::string& origin) {
  std::vector<std::string> texts;
  for (const Piece& piece : pieces) {
    texts.push_back(piece.text);
  }
  return Vocabulary::from_list(texts, origin);
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
  Unigram(const core::Json& json, std::vector<Piece> pieces, const std::string& origin)
      : Model(vocab_of(pieces, origin)), byte_fallback_(flag(json, "byte_fallback", false)) {
    double lowest = std::numeric_limits<double>::infinity();
    for (size_t id = 0; id < pieces.size(); ++id) {
      scores_.push_back(pieces[id].score);
      lowest = std::min(lowest, pieces[id].score);
      if (!pieces[id].text.empty()) {
        trie_.insert(pieces[id].text, vocab_.find(pieces[id].text));
      }
    }
    unknown_score_ = lowest - kUnknownPenalty;
    if (const core::Json* unk = core::json_find(json, "unk_id"); unk != nullptr) {
      const int64_t id = core::json_int(json, "unk_id", origin);
      if (id < 0 || id >= static_cast<int64_t>(pieces.size())) {
        refuse(origin, "unk_id is outside the vocabulary", std::to_string(id));
      }
      unk_ = static_cast<int32_t>(id);
    }
    for (int b = 0; b < 256; ++b) {
      constexpr char kHex[] = "0123456789ABCDEF";
      bytes_[static_cast<size_t>(b)] =
          vocab_.find(std::string("<0x") + kHex[b >> 4] + kHex[b & 15] + ">");
    }
  }

  void tokenize(std::string_view word,
                std::vector<int32_t>& ids,
                std::vector<Span>* spans) const override {
    thread_local std::vector<Node> best;
    viterbi(word, best);
    std::vector<Span> cuts;
    bool after_unknown = false;
    for (size_t end = word.size(); end > 0;) {
      const Node& node = best[end];
      const bool unknown = node.id == unk_;
      if (unknown && after_unknown) {
        cuts.back().begin = node.begin;
      } else {
        cuts.push_back({node.begin, static_cast<uint32_t>(end)});
      }
      after_unknown = unknown;
      end = node.begin;
    }
    for (auto cut = cuts.rbegin(); cut != cuts.rend(); ++cut) {
      emit(word, *cut, ids, spans);
    }
  }

 private:
  struct Node {
    double score;
    uint32_t begin;
    int32_t id;  ///< -2: not reached
  };

  void reach(Node& node, double score, size_t begin, int32_t id) const {
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
            Span cut,
            std::vector<int32_t>& ids,
            std::vector<Span>* spans) const {
    const std::string_view piece = word.substr(cut.begin, cut.end - cut.begin);
    const size_t from = ids.size();
    if (const int32_t id = vocab_.find(piece); id >= 0) {
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
      spans->insert(spans->end(), ids.size() - from, cut);
    }
  }

  Trie trie_;
  std::vector<double> scores_;
  std::array<int32_t, 256> bytes_{};
  double unknown_score_ = 0;
  int32_t unk_ = -1;
  bool byte_fallback_;
};

}  // namespace

std::unique_ptr<Model> make_unigram(const core::Json& json, const std::string& origin) {
  auto pieces = read_pieces(json, origin);
  return std::make_unique<Unigram>(json, std::move(pieces), origin);
}

}  // namespace kamerton::text
