// SPDX-License-Identifier: Apache-2.0
// WordPiece: the longest piece first, from the left; a word that cannot be covered is unknown as a
// whole.
#include <nlohmann/json.hpp>

#include "json_reader.h"
#include "model.h"
#include "unicode.h"
#include "word_cache.h"

namespace kamerton::text {
namespace {

Vocabulary vocab_of(const core::Json& json, const std::string& origin) {
  const core::Json* vocab = core::json_find(json, "vocab");
  if (vocab == nullptr) {
    refuse(origin, "the model has no vocab");
  }
  return Vocabulary::from_object(*vocab, origin);
}

class WordPiece final : public Model {
 public:
  WordPiece(const core::Json& json, const std::string& origin)
      : Model(vocab_of(json, origin)), prefix_(word(json, "continuing_subword_prefix", "##")) {
    const std::string unk = word(json, "unk_token", "[UNK]");
    unk_ = vocab_.find(unk);
    if (unk_ < 0) {
      refuse(origin, "the unk_token is not in the vocabulary", unk);
    }
    if (core::json_find(json, "max_input_chars_per_word") != nullptr) {
      longest_ = core::json_int(json, "max_input_chars_per_word", origin);
    }
    if (longest_ < 1 || longest_ > 1000) {
      refuse(origin, "max_input_chars_per_word must be 1 to 1000", std::to_string(longest_));
    }
  }

  void tokenize(std::string_view text,
                std::vector<int32_t>& ids,
                std::vector<Span>* spans) const override {
    const bool cacheable = spans == nullptr && text.size() <= WordCache::kLongestWord;
    const uint64_t hash = cacheable ? WordCache::hash(text) : 0;
    if (cacheable && cache_.find(hash, text, ids)) {
      return;
    }
    const size_t from = ids.size();
    const size_t spans_from = spans != nullptr ? spans->size() : 0;
    if (!cover(text, ids, spans)) {
      ids.resize(from);
      ids.push_back(unk_);
      if (spans != nullptr) {
        spans->resize(spans_from);
        spans->push_back({0, static_cast<uint32_t>(text.size())});
      }
    }
    if (cacheable) {
      cache_.put(hash, text, ids, from);
    }
  }

 private:
  bool cover(std::string_view text, std::vector<int32_t>& ids, std::vector<Span>* spans) const {
    int64_t chars = 0;
    for (size_t i = 0; i < text.size(); i += char_length(static_cast<unsigned char>(text[i]))) {
      ++chars;
    }
    if (chars > longest_) {
      return false;
    }
    thread_local std::string piece;
    for (size_t begin = 0; begin < text.size();) {
      size_t end = text.size();
      int32_t id = -1;
      while (end > begin) {
        piece.assign(begin > 0 ? prefix_ : "").append(text.substr(begin, end - begin));
        id = vocab_.find(piece);
        if (id >= 0) {
          break;
        }
        end = previous_start(text, end);
      }
      if (id < 0) {
        return false;
      }
      ids.push_back(id);
      if (spans != nullptr) {
        spans->push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(end)});
      }
      begin = end;
    }
    return true;
  }

  std::string prefix_;
  int32_t unk_ = -1;
  int64_t longest_ = 100;
  WordCache cache_;
};

/// A word is a token or unknown.
class WordLevel final : public Model {
 public:
  WordLevel(const core::Json& json, const std::string& origin)
      : Model(vocab_of(json, origin)), unk_(vocab_.find(word(json, "unk_token", "<unk>"))) {}
  void tokenize(std::string_view text,
                std::vector<int32_t>& ids,
                std::vector<Span>* spans) const override {
    const int32_t known = vocab_.find(text);
    if (known < 0 && unk_ < 0) {
      refuse("text", "a word is not in the vocabulary and there is no unknown token");
    }
    ids.push_back(known >= 0 ? known : unk_);
    if (spans != nullptr) {
      spans->push_back({0, static_cast<uint32_t>(text.size())});
    }
  }

 private:
  int32_t unk_;
};

}  // namespace

std::unique_ptr<Model> make_wordpiece(const core::Json& json, const std::string& origin) {
  return std::make_unique<WordPiece>(json, origin);
}

std::unique_ptr<Model> make_model(const core::Json& json,
                                  bool byte_level,
                                  const std::string& origin) {
  if (!json.is_object()) {
    refuse(origin, "there is no model");
  }
  // Old files leave the type out where it is BPE.
  const std::string type =
      word(json, "type", core::json_find(json, "merges") != nullptr ? "BPE" : "");
  if (type == "BPE") {
    return make_bpe(json, byte_level, origin);
  }
  if (byte_level) {
    refuse(origin, "ByteLevel words need a BPE model", type);
  }
  if (type == "Unigram") {
    return make_unigram(json, origin);
  }
  if (type == "WordPiece") {
    return make_wordpiece(json, origin);
  }
  if (type == "WordLevel") {
    return std::make_unique<WordLevel>(json, origin);
  }
  refuse(origin, "this model type is not supported: BPE, Unigram, WordPiece, WordLevel are", type);
}

}  // namespace kamerton::text
