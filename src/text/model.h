// SPDX-License-Identifier: Apache-2.0
// The "model" of a tokenizer.json: one word to ids.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kamerton/core/json.h"

#include "aligned_text.h"
#include "vocabulary.h"

namespace kamerton::text {

class Model {
 public:
  explicit Model(Vocabulary vocab) : vocab_(std::move(vocab)) {}
  virtual ~Model() = default;
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  /// Appends the ids of a word (never empty) and, where asked, the bytes of the word that each
  /// stands for.
  virtual void tokenize(std::string_view word,
                        std::vector<int32_t>& ids,
                        std::vector<Span>* spans) const = 0;
  const Vocabulary& vocab() const { return vocab_; }

 protected:
  Vocabulary vocab_;
};

/// `byte_level`: words come as plain bytes and mean the characters of the GPT-2 alphabet.
std::unique_ptr<Model> make_model(const core::Json& json,
                                  bool byte_level,
                                  const std::string& origin);
std::unique_ptr<Model> make_bpe(const core::Json& json, bool byte_level, const std::string& origin);
std::unique_ptr<Model> make_unigram(const core::Json& json, const std::string& origin);
std::unique_ptr<Model> make_wordpiece(const core::Json& json, const std::string& origin);

}  // namespace kamerton::text
